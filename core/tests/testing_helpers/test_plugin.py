"""The pytest plugin as its users meet it: installed, it gives `job_queue`, and costs next to nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from protojobs import job
from protojobs.testing import TestQueue


@job(name="left-over")
def left_over() -> None: ...


A_TEST = """
from protojobs import job
from protojobs.testing import TestQueue, assert_pushed

@job(name="add")
def add(a: int, b: int) -> int:
    return a + b

def test_it(job_queue: TestQueue):
    job_queue.push(add.bind(1, 2))
    assert job_queue.drain().done == 1
    assert_pushed(job_queue, add.bind(1, 3))
"""


def pytest_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PROTOJOBS_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def test_the_fixture_is_there_without_a_conftest_and_failures_are_readable(tmp_path: Path) -> None:
    (tmp_path / "test_add.py").write_text(A_TEST)
    ran = pytest_in(tmp_path, "-W", "error")
    assert ran.returncode == 1, ran.stdout
    assert "1 failed" in ran.stdout
    assert "warning" not in ran.stdout
    assert "\"add\", data {'a': 1, 'b': 3} was not pushed." in ran.stdout
    assert "- {'a': 1, 'b': 3}" in ran.stdout
    assert "+ {'a': 1, 'b': 2}" in ran.stdout
    assert "assertions.py:" not in ran.stdout  # the traceback ends in the user's own line


def test_it_is_listed_among_the_fixtures_with_its_words(tmp_path: Path) -> None:
    assert "job_queue" in pytest_in(tmp_path, "--fixtures").stdout


ON_A_FILE = """
import pytest
from protojobs import job

@job(name="add")
def add(a: int, b: int) -> int:
    return a + b

@pytest.fixture
def job_queue_store():
    return "sqlite:///jobs.db"

def test_one(job_queue):
    job_queue.push(add.bind(1, 2))
    job_queue.push(add.bind(3, 4))
    job_queue.travel(days=1)

def test_another_finds_nothing_of_it(job_queue):
    assert job_queue.drain().runs == 0
    assert job_queue.stats().total == 0
"""


def test_a_store_that_a_test_names_is_made_and_is_empty_for_the_next_test(tmp_path: Path) -> None:
    (tmp_path / "test_add.py").write_text(ON_A_FILE)
    ran = pytest_in(tmp_path)
    assert "2 passed" in ran.stdout, ran.stdout


def test_a_store_that_holds_jobs_already_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "test_add.py").write_text(ON_A_FILE)
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    with TestQueue(store=url) as queue:
        queue.push(left_over)
        ran = pytest_in(tmp_path)
        assert "2 errors" in ran.stdout, ran.stdout
        assert "holds 1 job(s) before the test begins" in ran.stdout
        assert queue.stats().pending == 1


def test_loaded_it_loads_neither_driver_nor_hypothesis_nor_asyncio() -> None:
    code = (
        "import sys; import pytest; before = set(sys.modules); import protojobs.testing.plugin;"
        "new = set(sys.modules) - before; heavy = ('hypothesis', 'asyncio', 'sqlalchemy', 'protojobs_', 'redis', "
        "'click', 'rich', 'protojobs.worker', 'protojobs.testing.');"
        "print(sorted(m for m in new if m.startswith(heavy) and m != 'protojobs.testing.plugin'))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "[]\n"


def test_every_name_of_the_package_can_be_had() -> None:
    from protojobs import testing

    for name in testing.__all__:
        assert getattr(testing, name).__name__ == name
