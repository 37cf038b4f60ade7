"""`python -m protojobs.testing.conformance LEVEL`: run the kit, and tell it line by line, each a JSON object.

This is how `protojobs conformance` runs it: in a process of its own, which a broken driver may take with it. The URL of
the store is in the environment (see actor.py). The lines: `{"begun": tests}`, one `{"test": ...}` for each test that
has ended, and at the end `{"report": ..., "errors": [...]}`. Nothing that the driver prints gets among them.
"""

from __future__ import annotations

import os
import sys

import msgspec
from msgspec import Struct

from protojobs.testing.conformance.actor import URL_VARIABLE
from protojobs.testing.conformance.levels import Level
from protojobs.testing.conformance.report import Report, TestReport
from protojobs.testing.conformance.running import run

__all__ = ["main"]


class _Begun(Struct):
    begun: int


class _Ended(Struct):
    test: TestReport


class _Whole(Struct):
    report: Report
    errors: list[str]


def main(level: str) -> int:
    """Run the tests up to the level. 0: all that is claimed passed, 1: not so."""
    lines = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # from here on stdout is ours alone

    def say(line: Struct) -> None:
        lines.write(msgspec.json.encode(line) + b"\n")

    report, errors = run(
        os.environ[URL_VARIABLE],
        Level(level),
        begin=lambda count: say(_Begun(count)),
        tell=lambda test: say(_Ended(test)),
    )
    say(_Whole(report, errors))
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
