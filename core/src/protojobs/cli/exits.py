"""The exit codes, and which error gets which. Scripts rely on them: they do not change."""

from __future__ import annotations

from collections.abc import Collection
from enum import IntEnum

from protojobs.errors import (
    ConfigurationError,
    JobMissing,
    JobUnknown,
    NoResult,
    NotSupported,
    PayloadError,
    ProtojobsError,
    ScheduleUnknown,
    SchemaOutdated,
    StoreUnavailable,
    WaitTimeout,
)

__all__ = ["MEANINGS", "CommandFailed", "Exit", "exit_of", "exit_of_many"]


class Exit(IntEnum):
    """The exit codes."""

    OK = 0
    BAD = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    UNREACHABLE = 5
    PARTLY = 6
    NOT_SUPPORTED = 7
    NOT_MIGRATED = 8
    INTERRUPTED = 130
    PIPE_CLOSED = 141


MEANINGS = {
    Exit.OK: "done (a list may be empty)",
    Exit.BAD: (
        "the answer is bad: a worker got stuck or was killed, a resource did not open, or something unexpected happened"
    ),
    Exit.USAGE: "wrong usage, data or configuration; or refused, since nobody said yes",
    Exit.NOT_FOUND: "no such job, failed job, queue or schedule",
    Exit.CONFLICT: "it is in another state than this needs",
    Exit.UNREACHABLE: "the store, or the probe of a worker, does not answer",
    Exit.PARTLY: "done for some, not for all",
    Exit.NOT_SUPPORTED: "this driver cannot do it",
    Exit.NOT_MIGRATED: "the store is not migrated, or to another version",
    Exit.INTERRUPTED: "interrupted from the keyboard",
    Exit.PIPE_CLOSED: "whoever read stdout has gone",
}

_CODES: tuple[tuple[type[ProtojobsError], Exit], ...] = (  # the first that fits
    (NotSupported, Exit.NOT_SUPPORTED),
    (JobUnknown, Exit.NOT_FOUND),
    (ScheduleUnknown, Exit.NOT_FOUND),
    (JobMissing, Exit.NOT_FOUND),
    (NoResult, Exit.CONFLICT),
    (WaitTimeout, Exit.CONFLICT),
    (ConfigurationError, Exit.USAGE),
    (PayloadError, Exit.USAGE),
    (StoreUnavailable, Exit.UNREACHABLE),
    (SchemaOutdated, Exit.NOT_MIGRATED),
)


class CommandFailed(ProtojobsError):
    """What a command could not do, with its exit code."""

    def __init__(self, code: Exit, message: str, *, mend: str = "") -> None:
        super().__init__(message, mend=mend)
        self.code = code


def exit_of(error: ProtojobsError) -> Exit:
    """The exit code of an error."""
    if isinstance(error, CommandFailed):
        return error.code
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.BAD)


def exit_of_many(codes: Collection[Exit]) -> Exit:
    """One exit code for several items: theirs where they agree, else `PARTLY`."""
    distinct = set(codes)
    return distinct.pop() if len(distinct) == 1 else Exit.PARTLY if distinct else Exit.OK
