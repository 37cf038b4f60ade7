"""What pyright and mypy see of mistakes in a program that uses protojobs: `python3 dev.py check mistakes`.

Not collected by `dev.py test`: the type checkers are installed by `dev.py check`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
GOOD, MISTAKES = HERE / "good.py", HERE / "mistakes.py"
CHECK_S = 300.0

ALL = frozenset(range(1, 34))
# 1, 2: a class may have attributes and methods of its own. 6: a Callable type cannot exclude *args.
# All of these are refused at run time, where the job is defined or pushed.
UNSEEN = frozenset({1, 2, 6})
UNSEEN_BY_PYRIGHT = UNSEEN | {3}  # the base's `*args: Any, **kwargs: Any` let it accept any override of `handle`
SEEN_MIN = 28


def seen_by_pyright(file: Path) -> dict[int, str]:
    """The first error on each line of the file, by line."""
    command = [BIN / "pyright", "--outputjson", "--pythonpath", sys.executable, file]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=CHECK_S, check=False)
    assert ran.returncode in (0, 1), ran.stdout + ran.stderr
    errors = [one for one in json.loads(ran.stdout)["generalDiagnostics"] if one["severity"] == "error"]
    return {one["range"]["start"]["line"] + 1: one["message"] for one in reversed(errors)}


def seen_by_mypy(file: Path) -> dict[int, str]:
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", file]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=CHECK_S, check=False)
    assert ran.returncode in (0, 1), ran.stdout + ran.stderr
    found = [re.match(r"[^:]+:(\d+): error: (.*)", line) for line in ran.stdout.splitlines()]
    return {int(one[1]): one[2] for one in reversed(found) if one}


def planted() -> dict[int, int]:
    """The number of each mistake, by its line."""
    found = [(line, re.search(r"# (\d+): ", text)) for line, text in enumerate(MISTAKES.read_text().splitlines(), 1)]
    return {line: int(number[1]) for line, number in found if number}


def numbers(seen: dict[int, str]) -> frozenset[int]:
    """The mistakes on these lines. Fails for a complaint about a line without one."""
    mistakes = planted()
    assert {line: text for line, text in seen.items() if line not in mistakes} == {}
    return frozenset(mistakes[line] for line in seen)


def test_the_mistakes_are_numbered_without_gaps() -> None:
    assert sorted(planted().values()) == sorted(ALL)


def test_pyright_sees_the_mistakes_and_nothing_else() -> None:
    seen = numbers(seen_by_pyright(MISTAKES))
    assert seen == ALL - UNSEEN_BY_PYRIGHT
    assert len(seen) >= SEEN_MIN


def test_mypy_sees_the_mistakes_and_nothing_else() -> None:
    seen = numbers(seen_by_mypy(MISTAKES))
    assert seen == ALL - UNSEEN
    assert len(seen) >= SEEN_MIN


def test_pyright_accepts_what_is_right() -> None:
    assert seen_by_pyright(GOOD) == {}


def test_mypy_accepts_what_is_right() -> None:
    assert seen_by_mypy(GOOD) == {}
