"""The optional part of the port for `protojobs doctor`: what a driver finds wrong with its store."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import IntEnum
from typing import Protocol, runtime_checkable

from msgspec import Struct

from protojobs.port.lifecycle import JobState

__all__ = ["IN_FRONT_MAX", "Diagnoses", "Finding", "Severity", "judged"]

IN_FRONT_MAX = 10_000  # jobs that are counted one by one to find a job's place in its line


class Severity(IntEnum):
    """How bad a finding is; the worst decides the exit code of `protojobs doctor`."""

    OK = 0  # looked at, and in order
    NOTE = 1  # worth knowing, nothing to do
    WARNING = 2  # will hurt under load or after an accident
    ERROR = 3  # hurts now, or a promise does not hold


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that was looked at: what it is, why it matters, and how to mend it."""

    code: str  # stable, for scripts: `clock_skew`, `old_transaction` ...
    severity: Severity
    what: str  # one sentence with the figures that were seen
    why: str = ""
    mend: str = ""  # a command or a setting, as exact as can be


def judged(
    code: str, what: str, *, is_good: bool, why: str = "", mend: str = "", bad: Severity = Severity.WARNING
) -> Finding:
    """A finding that is OK, with nothing to mend, or as `bad` as is said."""
    severity = Severity.OK if is_good else bad
    return Finding(code=code, severity=severity, what=what, why=why, mend="" if is_good else mend)


@runtime_checkable
class Diagnoses(Protocol):
    """A store that can be examined."""

    def diagnose(self) -> list[Finding]:
        """Look at the store and its settings, changing nothing; bounded, a few seconds at most.

        What could not be looked at (no rights, another version) is a finding of its own, not an exception. Raises
        StoreUnavailable when the store does not answer, SchemaOutdated when it is not migrated.
        """
        ...

    def in_front(self, job_id: str, *, counted_max: int = IN_FRONT_MAX) -> int:
        """How many due jobs of its queue a claim would lend before this one: higher priority, or as high and earlier.

        Counting stops at `counted_max`. 0 for a job that is not pending. By the index that claims walk.
        """
        ...

    def oldest_ended(self) -> Mapping[JobState, datetime]:
        """When the oldest job that is kept ended, for each finished state that has one: whether pruning keeps up."""
        ...
