"""A stranger's plugin, pip-installed from a distribution of its own: found, listed, and told what happens."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SAMPLE = Path(__file__).with_name("sample_plugin")

PROGRAM = """
from protojobs import Job, JobQueue, create_driver

class Fine(Job):
    def handle(self, data): pass

class Broken(Job):
    max_retries = 0
    def handle(self, data): raise RuntimeError("on purpose")

queue = JobQueue(create_driver("sqlite:///jobs.db"))
queue.driver.setup()
queue.push(Fine(), {})
queue.push(Broken(), {})
queue.work("default", 2)
"""


@pytest.fixture(scope="session")
def with_plugin(once: Callable[..., Path], wheels: Path, new_environment):
    def make(folder: Path) -> None:
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
        subprocess.run(command, cwd=SAMPLE, check=True, capture_output=True, timeout=120)
        for wheel in wheels.glob("*.whl"):
            (folder / wheel.name).write_bytes(wheel.read_bytes())
        environment = new_environment("environment-with-plugin")
        environment.install("protojobs[sql]", "sample-plugin-for-protojobs", wheels=folder)

    once("wheels-with-plugin", make)
    return new_environment("environment-with-plugin")


def test_it_is_listed_with_its_version(with_plugin, tmp_path: Path) -> None:
    printed = with_plugin.run(with_plugin.protojobs, "plugins", cwd=tmp_path)
    assert "sample-plugin" in printed
    assert "0.3.0" in printed


def test_it_receives_its_events(with_plugin, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    notes = tmp_path / "notes.txt"
    with_plugin.run(with_plugin.python, "program.py", cwd=tmp_path, SAMPLE_PLUGIN_FILE=str(notes))
    lines = [line.split() for line in notes.read_text().splitlines()]
    assert sorted((what, name.rpartition(".")[2], queue) for what, name, queue in lines) == [
        ("failed", "Broken", "default"),
        ("processed", "Fine", "default"),
        ("queued", "Broken", "default"),
        ("queued", "Fine", "default"),
    ]
