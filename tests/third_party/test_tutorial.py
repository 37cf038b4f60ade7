"""The tutorial "Write a driver": its commands run, its code is the driver's, and its table of steps is true."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from docs import pages
from third_party.stranger import LMDB, VERBS, built

PAGE = pages.DOCS / "tutorial/write-a-driver.md"
BLOCKS = pages.blocks_of(PAGE)
SOURCES = {path.name: path.read_text() for path in LMDB.rglob("*.py")}
STEPS = pages.table_after(PAGE, "How far you are")
PART = Path(__file__).with_name("part_of_a_driver.py")
TOLERANCE = 0.15  # the kit grows, and the table tells how the steps compare


class TestItsCode:
    SNIPPETS = [block for block in BLOCKS if block.language == "python"]

    @pytest.mark.parametrize("block", SNIPPETS, ids=lambda block: f"line {block.line}")
    def test_each_snippet_is_in_the_drivers_source(self, block: pages.Block) -> None:
        levels = [textwrap.indent(block.text, " " * width) for width in range(0, 24, 4)]
        assert any(text in SOURCES[block.title] for text in levels), block.text

    def test_there_is_one_of_every_file(self) -> None:
        titles = {"file.py", "rows.py", "driver.py", "schedules.py", "test_conformance.py"}
        assert {block.title for block in self.SNIPPETS} == titles


class TestItsSteps:
    def test_they_name_every_verb_once(self) -> None:
        assert sorted(verb for step in STEPS for verb in words(step[1])) == sorted(VERBS)

    @pytest.mark.slow
    @pytest.mark.parametrize("place", range(len(STEPS)), ids=[step[0] for step in STEPS])
    def test_after_each_as_many_tests_are_green_as_it_says(self, place: int, tmp_path: Path) -> None:
        verbs = [verb for step in STEPS[: place + 1] for verb in words(step[1])]
        outcomes = outcomes_with(verbs, tmp_path)
        shown = int(STEPS[place][2])
        assert abs(sum(outcomes.values()) - shown) <= 2 + shown * TOLERANCE
        examples = [words(step[3])[0] for step in STEPS]
        assert [outcomes[f"test_{name}"] for name in examples] == [number <= place for number in range(len(STEPS))]


class TestItsCommands:
    def test_every_command_is_run_by_a_test(self) -> None:
        shown = [line[2:] for block in BLOCKS for line in block.text.splitlines() if line.startswith("$ ")]
        assert shown == [
            "protojobs drivers new lmdb",  # by the tests of all pages, and below
            "cd protojobs-lmdb",
            "pip install -e '.[testing]'",
            "pytest -q",
            "pytest -q",  # protojobs_lmdb/tests, in this very run
            "protojobs conformance lmdb:///conformance.lmdb --level queue --yes",
            "export PROTOJOBS_URL=lmdb:///jobs.lmdb",
            "protojobs migrate",
            "protojobs stats",
            "protojobs drivers",
        ]

    @pytest.mark.slow
    def test_what_is_written_can_be_installed_and_has_one_green_test(self, tmp_path: Path) -> None:
        command(tmp_path, "drivers", "new", "lmdb", is_installed=False)
        package = tmp_path / "protojobs-lmdb"
        (tmp_path / "wheel").mkdir()
        site = built(package, tmp_path / "wheel")
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "--tb=no", "-p", "no:cacheprovider", "tests"],
            env={**os.environ, "PYTHONPATH": str(site)},
            cwd=package,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ran.returncode == 1, ran.stdout + ran.stderr
        assert " 1 passed," in ran.stdout.splitlines()[-1]

    def test_the_driver_is_what_was_written_and_filled_in(self, tmp_path: Path) -> None:
        command(tmp_path, "drivers", "new", "lmdb", is_installed=False)
        written = tmp_path / "protojobs-lmdb"
        assert (LMDB / "tests/test_conformance.py").read_text() == (written / "tests/test_conformance.py").read_text()
        ours, theirs = (set((folder / "pyproject.toml").read_text().splitlines()) for folder in (LMDB, written))
        assert {line.split(" = ")[0] for line in ours ^ theirs} == {"description", "dependencies"}
        assert any(block.text.strip() in ours for block in BLOCKS if block.language == "text")

    def test_it_is_a_driver_like_any_other(self, tmp_path: Path) -> None:
        command(tmp_path, "migrate")
        assert (tmp_path / "jobs.lmdb").exists()
        assert command(tmp_path, "stats") == ""
        assert "lmdb\tprotojobs-lmdb\t0.1.0\tprotojobs_lmdb:LmdbDriver" in command(tmp_path, "drivers").splitlines()

    @pytest.mark.slow
    def test_the_kit_says_that_it_reaches_the_queue_level(self, tmp_path: Path) -> None:
        report = tmp_path / "report.json"
        words = ["conformance", "lmdb:///conformance.lmdb", "--level", "queue", "--yes", "--json", str(report)]
        command(tmp_path, *words)
        assert json.loads(report.read_text())["reached"] == "queue"


def words(cell: str) -> list[str]:
    return [word.strip("`") for word in cell.split()]


def command(folder: Path, *arguments: str, is_installed: bool = True) -> str:
    """What `protojobs ...` printed, in a pipe."""
    environment = {**os.environ, "PROTOJOBS_URL": "lmdb:///jobs.lmdb"}
    if not is_installed:
        del environment["PYTHONPATH"], environment["PROTOJOBS_URL"]
    ran = subprocess.run(
        [sys.executable, "-m", "protojobs.cli", *arguments],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def outcomes_with(verbs: list[str], folder: Path) -> dict[str, bool]:
    """The kit's queue level against a driver that has only these verbs: each test, and whether it passed."""
    answer = folder / "outcomes.json"
    subprocess.run(
        [sys.executable, str(PART), str(answer), *verbs],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(PART.parents[1]), os.environ["PYTHONPATH"]])},
        cwd=folder,
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=150,
    )
    return json.loads(answer.read_text())
