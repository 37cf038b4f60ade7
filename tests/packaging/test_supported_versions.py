"""Older versions that we say we support, each in an environment of its own; the other tests run on the pinned ones."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("sqlalchemy_program.py")
ASYNC_DRIVERS = {
    "sqlite": ["sqlite+aiosqlite"],
    "postgresql": ["postgresql+psycopg", "postgresql+asyncpg"],
}

# What an application's tests do with the fixture and the assertions.
OF_AN_APPLICATION = """
import pytest
from protojobs import Job, job
from protojobs.testing import assert_idempotent, assert_not_pushed, assert_pushed

ran = []

class SendMail(Job):
    retry_delay = 60
    def handle(self, data):
        ran.append(data["to"])
        if data["to"] == "nobody":
            raise ValueError("no address")

@job
def add(a: int, b: int) -> int:
    return a + b

def test_pytest_is_the_one_that_was_asked_for():
    assert pytest.version_tuple[0] == 8

def test_a_job_is_pushed_and_drained(job_queue):
    job_queue.push(SendMail, {"to": "ada"})
    assert_pushed(job_queue, SendMail, data={"to": "ada"})
    assert_not_pushed(job_queue, add)
    report = job_queue.drain()
    assert report.done == 1
    assert ran == ["ada"]

def test_a_retry_waits_until_time_has_passed(job_queue):
    job_queue.push(SendMail, {"to": "nobody"})
    with pytest.raises(AssertionError):
        assert_not_pushed(job_queue, SendMail)
    job_queue.drain(raises=False)
    assert job_queue.stats().pending == 1
"""


def run_pytest(environment, folder: Path, *words: object) -> str:
    """What pytest of that environment printed; a failure shows all it said."""
    command = [str(environment.python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, words)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV_", "PYTEST_"))}
    ran = subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, f"{ran.stdout[-8000:]}\n{ran.stderr[-2000:]}"
    return ran.stdout


def test_the_fixtures_work_with_pytest_8_and_bring_no_hypothesis(new_environment, wheels: Path, tmp_path: Path) -> None:
    environment = new_environment("pytest-8")
    environment.install("protojobs[testing]", "pytest<9", wheels=wheels, unpinned=("pytest",))
    (tmp_path / "test_shop.py").write_text(OF_AN_APPLICATION)
    assert "3 passed" in run_pytest(environment, tmp_path, tmp_path)
    words = "import importlib.metadata as m; print(*sorted(d.name.lower() for d in m.distributions()))"
    assert "hypothesis" not in environment.run(environment.python, "-c", words, cwd=tmp_path).split()


def oldest_sqlalchemy() -> str:
    """The version that the SQL driver's requirement begins with."""
    project = tomllib.loads((ROOT / "drivers/sqlalchemy/pyproject.toml").read_text())["project"]
    (needs,) = (needs for needs in project["dependencies"] if needs.startswith("sqlalchemy"))
    return re.findall(r">=([\d.]+)", needs)[0]


@pytest.mark.timeout(580)  # an installation and two programs, each within its own bound
@pytest.mark.parametrize("version", ["oldest", "newest"])
def test_the_sql_driver_works_with_sqlalchemy_2_0(
    new_environment, make_store_url: Callable[[str], str], wheels: Path, version: str
) -> None:
    wanted = f"sqlalchemy=={oldest_sqlalchemy()}" if version == "oldest" else "sqlalchemy<2.1"
    environment = new_environment(f"sqlalchemy-2.0-{version}")
    what = ("protojobs[sql,postgresql]", wanted, "asyncpg")
    environment.install(*what, wheels=wheels, unpinned=("sqlalchemy",))

    for kind, drivers in ASYNC_DRIVERS.items():
        words = (environment.python, PROGRAM, make_store_url(kind), *drivers)
        seen = json.loads(environment.run(*words, cwd=environment.folder).splitlines()[-1])
        tried = seen.pop("sqlalchemy")
        assert tried.startswith("2.0.")
        assert version != "oldest" or tried == oldest_sqlalchemy()
        committed = 1 + len(drivers)
        assert seen == {"pushed": committed + 1, "done": committed, "failed": 1, "migrated_again": []}
