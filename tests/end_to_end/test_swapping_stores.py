"""An application moves to another database by one line of its configuration."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

APPLICATION = """
from protojobs import Job, JobQueue

class Greet(Job):
    queue = "greetings"

    def handle(self, data):
        print("hello", data["name"])

queue = JobQueue.from_config()
queue.driver.setup()
queue.push(Greet, {"name": "Jo"})
report = queue.work("greetings", 10)
print(type(queue.driver).__name__, report.done, queue.stats("greetings").completed)
"""


@pytest.mark.parametrize("kinds", [("sqlite", "postgresql"), ("postgresql", "mariadb")], ids="-".join)
def test_one_line_of_protojobs_toml_moves_an_application(
    kinds: tuple[str, str], make_store_url: Callable[[str], str], tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(APPLICATION)
    settings = 'url = "{url}"\nmax_retries = 1\n'
    files: list[str] = []
    for kind in kinds:
        (tmp_path / "protojobs.toml").write_text(settings.format(url=make_store_url(kind)))
        files.append((tmp_path / "protojobs.toml").read_text())
        ran = subprocess.run(
            [sys.executable, "shop.py"],
            cwd=tmp_path,
            env={k: v for k, v in os.environ.items() if not k.startswith("PROTOJOBS_")},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ran.stdout == "hello Jo\nSQLAlchemyDriver 1 1\n", ran.stderr
    first, second = (text.splitlines() for text in files)
    assert [a == b for a, b in zip(first, second, strict=True)].count(False) == 1
