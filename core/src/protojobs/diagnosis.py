"""What a driver says of the health of its store: findings for `protojobs doctor`, another optional part of the port."""

from __future__ import annotations

from enum import IntEnum
from typing import Protocol, runtime_checkable

from msgspec import Struct

__all__ = ["Diagnoses", "Finding", "Severity"]


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


@runtime_checkable
class Diagnoses(Protocol):
    """A store that can be examined."""

    def diagnose(self) -> list[Finding]:
        """Look at the store and its settings, changing nothing; bounded, a few seconds at most.

        What could not be looked at (no rights, another version) is a finding of its own, not an exception. Raises
        StoreUnavailable when the store does not answer.
        """
        ...
