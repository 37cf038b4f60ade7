"""What tests of jobs, workers and drivers need. The conformance kit is `protojobs.testing.conformance`.

pytest loads this package in every run, for the plugin; so each name is imported when somebody asks for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from protojobs.testing.assertions import assert_not_pushed, assert_pushed
    from protojobs.testing.flaky import FlakyDriver
    from protojobs.testing.idempotence import assert_idempotent
    from protojobs.testing.manual_clock import ManualClock
    from protojobs.testing.pushes import PushedJob
    from protojobs.testing.queueing import DrainReport, TestQueue

__all__ = [
    "DrainReport",
    "FlakyDriver",
    "ManualClock",
    "PushedJob",
    "TestQueue",
    "assert_idempotent",
    "assert_not_pushed",
    "assert_pushed",
]

_HOMES = {
    "DrainReport": "queueing",
    "FlakyDriver": "flaky",
    "ManualClock": "manual_clock",
    "PushedJob": "pushes",
    "TestQueue": "queueing",
    "assert_idempotent": "idempotence",
    "assert_not_pushed": "assertions",
    "assert_pushed": "assertions",
}


def __getattr__(name: str) -> object:
    if (home := _HOMES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
