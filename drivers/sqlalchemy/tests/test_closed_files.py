"""A job has closed the descriptors beneath SQLite's connections: they are thrown away, and the driver goes on."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from protojobs.entropy import fresh_id
from protojobs.errors import ProtojobsError
from protojobs.port.records import NewJob, WorkerInfo
from protojobs_sqlalchemy import SQLAlchemyDriver

FILES = Path("/proc/self/fd")
LIMIT_S = 90.0  # SQLite itself tries for ten seconds

pytestmark = pytest.mark.skipif(not FILES.exists(), reason="only Linux tells which file a descriptor is of")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def driver(path: Path) -> Iterator[SQLAlchemyDriver]:
    """With idle connections of each kind."""
    driver = SQLAlchemyDriver(f"sqlite:///{path}")
    driver.setup()
    driver.register(WORKER)
    driver.enqueue([new_job()])
    driver.heartbeat(WORKER.id, {})
    with driver.begin() as session:
        session.execute(text("SELECT 1"))
    yield driver
    driver.close()


WORKER = WorkerInfo(id=fresh_id(), host="h", pid=1, queues=("q",), concurrency=1, lease_s=60)


def new_job() -> NewJob:
    return NewJob(id=fresh_id(), queue="q", job_name="n", job_class="c", data="{}")


def close_files_of(path: Path) -> None:
    """As os.closerange(3, 256) does, but for what the test itself has open. Nothing else takes these numbers."""
    found = {int(each.name) for each in FILES.iterdir() if each.is_symlink() and str(path) in os.readlink(each)}
    assert len(found) >= 2
    null = os.open("/dev/null", os.O_RDONLY)
    for number in found:
        os.dup2(null, number)
        os.close(number)
    os.close(null)


def eventually(verb: Callable[[], object]) -> None:
    """It may fail for as long as connections that lost their files are left."""
    ends = time.monotonic() + LIMIT_S
    while True:
        try:
            verb()
            return
        except ProtojobsError:
            assert time.monotonic() < ends, "the driver does not come back"


def test_the_driver_goes_on_with_new_connections(driver: SQLAlchemyDriver, path: Path) -> None:
    close_files_of(path)
    eventually(lambda: driver.enqueue([new_job()]))
    eventually(lambda: driver.heartbeat(WORKER.id, {}))
    assert len(driver.claim(WORKER.id, ["q"], slots=5, limit=5)) == 2
    with driver.begin() as session:
        assert session.execute(text("SELECT count(*) FROM jobs")).scalar_one() == 2


def test_who_waits_for_jobs_meanwhile_goes_on_too(driver: SQLAlchemyDriver, path: Path) -> None:
    close_files_of(path)
    eventually(lambda: driver.wait(["q"], 0.01))
    assert driver.wait(["q"], 1.0)


def test_a_worker_beside_an_application_s_pool_goes_on_with_new_connections(path: Path) -> None:
    engine = create_engine(f"sqlite:///{path}")
    driver = SQLAlchemyDriver(engine)
    driver.setup()
    driver.register(WORKER)
    driver.enqueue([new_job()])
    driver.heartbeat(WORKER.id, {})
    engine.dispose()  # its own idle ones would keep what SQLite has lost
    close_files_of(path)
    eventually(lambda: driver.heartbeat(WORKER.id, {}))
    assert len(driver.claim(WORKER.id, ["q"], slots=5, limit=5)) == 1
    driver.close()


@pytest.mark.parametrize("code", ["SQLITE_PROTOCOL", "SQLITE_IOERR_READ", "SQLITE_CANTOPEN", "SQLITE_NOTADB"])
def test_a_connection_with_such_an_error_is_not_used_again(driver: SQLAlchemyDriver, code: str) -> None:
    error = sqlite3.OperationalError("locking protocol")
    error.sqlite_errorcode = getattr(sqlite3, code)
    assert driver._dialect.is_unusable(error)
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY_SNAPSHOT
    assert not driver._dialect.is_unusable(error)
