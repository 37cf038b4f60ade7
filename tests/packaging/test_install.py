"""`pip install 'protojobs[sql]'` in an empty environment, and what a user does next."""

from __future__ import annotations

import os
import statistics
import subprocess
from pathlib import Path

import pytest

# The promise is 60 ms, on a machine on which msgspec, of which we need nearly all, takes 25 of them.
IMPORT_OF_MSGSPECS_MAX = 2.4

FIRST_PROGRAM = """
from protojobs import Job, JobQueue, create_driver

class Greet(Job):
    def handle(self, data):
        print("hello,", data["name"])

queue = JobQueue(create_driver("sqlite:///jobs.db"))
queue.driver.setup()
job_id = queue.push(Greet(), {"name": "world"})
assert queue.stats().pending == 1
report = queue.work("default", 1)
print("done", report.done, "failed", report.failed)
print("left", queue.stats().pending)
"""

WHAT_IS_LOADED = """
import sys
import protojobs
print(" ".join(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_a_first_program_pushes_a_job_to_a_file_and_works_it(installed, tmp_path: Path) -> None:
    (tmp_path / "first.py").write_text(FIRST_PROGRAM)
    printed = installed.run(installed.python, "first.py", cwd=tmp_path)
    assert printed.splitlines() == ["hello, world", "done 1 failed 0", "left 0"]
    assert (tmp_path / "jobs.db").exists()


def test_the_command_line_is_there_and_explains_itself(installed, tmp_path: Path) -> None:
    printed = installed.run(installed.protojobs, "--help", cwd=tmp_path)
    assert "Usage: protojobs" in printed
    assert "worker" in printed


def test_what_is_installed_is_what_the_extra_needs_and_no_more(installed, tmp_path: Path) -> None:
    program = "import importlib.metadata as m; print(*sorted(d.name.lower() for d in m.distributions()))"
    found = set(installed.run(installed.python, "-c", program, cwd=tmp_path).split())
    assert {"protojobs", "protojobs-sqlalchemy", "sqlalchemy", "aiosqlite"} <= found
    assert found & {"protojobs-redis", "protojobs-memory", "redis", "psycopg", "pytest", "pillow"} == set()


def test_importing_protojobs_loads_no_driver_and_no_command_line(installed, tmp_path: Path) -> None:
    loaded = set(installed.run(installed.python, "-c", WHAT_IS_LOADED, cwd=tmp_path).split())
    heavy = {"protojobs_sqlalchemy", "sqlalchemy", "alembic", "click", "rich", "pytest", "hypothesis", "sqlite3"}
    assert "protojobs" in loaded
    assert loaded & heavy == set()


def test_importing_protojobs_is_quick(installed, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="no processor time of children on Windows")
    compiled = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path / "compiled")}

    def milliseconds(program: str) -> float:
        """Processor time, which the other tests on a busy machine do not add to as they do to the time of day."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([installed.python, "-c", program], cwd=tmp_path, check=True, timeout=60, env=compiled)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000

    programs = ("pass", "import msgspec", "import protojobs")
    milliseconds(programs[-1])  # the first one reads from a cold disk
    rounds = [[milliseconds(program) for program in programs] for _ in range(7)]
    empty, msgspec, protojobs = (statistics.median(column) for column in zip(*rounds, strict=True))
    cost, yard = protojobs - empty, msgspec - empty
    assert cost < IMPORT_OF_MSGSPECS_MAX * yard, f"import protojobs costs {cost:.0f} ms, msgspec {yard:.0f} of them"


def test_the_installed_distributions_fit_together(installed, tmp_path: Path) -> None:
    program = """
import importlib.metadata as m
for group in ("console_scripts", "protojobs.drivers"):
    for point in m.entry_points(group=group):
        if point.dist.name.startswith("protojobs"):
            point.load()
            print(point.name)
"""
    printed = installed.run(installed.python, "-c", program, cwd=tmp_path)
    assert sorted(printed.split()) == ["mariadb", "mysql", "postgresql", "protojobs", "sqlite"]
