"""How long a verb may take when its caller waits no longer: in a handshake, in an answer, for a lock, for a place."""

from __future__ import annotations

import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection

from protojobs.clock import time_left, within
from protojobs.entropy import fresh_id
from protojobs.errors import StoreUnavailable
from protojobs.port.records import NewJob
from protojobs_sqlalchemy import SQLAlchemyDriver
from protojobs_sqlalchemy.connecting import pools
from protojobs_sqlalchemy.dialect import Mode

LIMIT_S = 0.4
IN_TIME_S = 1.4  # and some for a busy machine
SLEEPS = {"postgresql": "SELECT pg_sleep(5)", "mariadb": "SELECT sleep(5)"}


def new_job() -> NewJob:
    return NewJob(id=fresh_id(), queue="q", job_name="n", job_class="c", data="{}")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Takes connections, and says nothing."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


@contextmanager
def given_up_in_time() -> Iterator[None]:
    began = time.monotonic()
    with pytest.raises(StoreUnavailable), within(LIMIT_S):
        yield
    assert time.monotonic() - began < IN_TIME_S


@pytest.mark.parametrize("scheme", ["postgresql", "mariadb"])
def test_opening_a_connection_is_given_up(silent_port: int, scheme: str) -> None:
    driver = SQLAlchemyDriver(f"{scheme}://me:secret@127.0.0.1:{silent_port}/jobs")
    with given_up_in_time():
        driver.now()
    driver.close()


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_waiting_for_an_answer_is_given_up_and_the_driver_goes_on(
    make_store_url: Callable[[str], str], kind: str
) -> None:
    driver = SQLAlchemyDriver(make_store_url(kind))
    driver.setup()

    def slow(conn: Connection) -> object:
        return conn.exec_driver_sql(SLEEPS[kind]).fetchall()

    with given_up_in_time():
        driver._connections.run(slow, Mode.SINGLE)
    driver.enqueue([new_job()])
    brief = SLEEPS[kind].replace("5", "0.6")  # beyond the limit, which is over: the connection has its own again
    driver._connections.run(lambda conn: conn.exec_driver_sql(brief).fetchall(), Mode.SINGLE)
    driver.close()


def test_waiting_for_sqlites_write_lock_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    driver = SQLAlchemyDriver(f"sqlite:///{path}")
    driver.setup()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with given_up_in_time():
            driver.enqueue([new_job()])
    driver.enqueue([new_job()])
    driver.close()


def test_waiting_for_one_of_the_connections_is_given_up(
    make_store_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "_AT_ONCE_MAX", 1)
    driver = SQLAlchemyDriver(make_store_url("postgresql"))
    driver.setup()
    has_begun, may_end = threading.Event(), threading.Event()

    def hold(conn: Connection) -> None:
        has_begun.set()
        may_end.wait(10)

    holder = threading.Thread(target=driver._connections.run, args=(hold, Mode.SINGLE), daemon=True)
    holder.start()
    assert has_begun.wait(10)
    with given_up_in_time():
        driver.enqueue([new_job()])
    may_end.set()
    holder.join(10)
    driver.enqueue([new_job()])
    assert driver.stats().pending == 1
    driver.close()


def test_without_a_limit_a_driver_keeps_its_own() -> None:
    assert time_left(10.0) == 10.0
