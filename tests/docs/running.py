"""Runs a page's blocks by page_runner.py, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from pages import Block

RUN = {"python", "console", "toml"}
_RUNNER = Path(__file__).with_name("page_runner.py")
_PAGE_S = 120


def is_run(block: Block) -> bool:
    """Whether the block is an example to be run, or the output of one."""
    return block.language in RUN or block.is_output


def complaint_about(name: str, blocks: Iterable[Block], folder: Path) -> str:
    """What is wrong with the page, each with its line; empty when all is as it says. `folder` is the reader's."""
    steps = [
        {
            "kind": "output" if block.is_output else block.language,
            "text": block.text,
            "line": block.line,
            "title": block.title,
        }
        for block in blocks
        if is_run(block)
    ]
    ran = subprocess.run(
        [sys.executable, str(_RUNNER)],
        input=json.dumps({"name": name, "blocks": steps}),
        env={variable: value for variable, value in os.environ.items() if not variable.startswith("PROTOJOBS_")},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=_PAGE_S,
    )
    if ran.stdout:
        return f"{ran.stdout}{ran.stderr[-4000:]}"
    return "" if ran.returncode == 0 else f"the runner itself failed\n{ran.stderr}"
