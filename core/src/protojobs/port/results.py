"""The optional part of the port for results: what a completed job has returned, and how any job ended.

A driver that keeps results says so by `Capabilities.results`. Then its settling step stores `Settlement.result` and the
jobs of `Settlement.then`, in that very step and for an applied settlement only; so a result is always that of the run
that counts, and what comes next is stored once. A result lives as long as its job: whatever deletes the one deletes
the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol, runtime_checkable

from msgspec import Struct

from protojobs.port.lifecycle import JobState

__all__ = ["ERROR_CHARS_MAX", "RESULT_BYTES_MAX", "JobResult", "Results", "last_line"]

RESULT_BYTES_MAX = 64 * 1024  # of the text of one result, in UTF-8
ERROR_CHARS_MAX = 500  # of the last line of a traceback


class JobResult(Struct, frozen=True, kw_only=True):
    """How a job stands, and what came of it."""

    id: str
    job_name: str
    state: JobState
    result: str | None = None
    """Of a completed job: the JSON text that its run's settlement brought. None: it brought none."""
    error: str = ""
    """Of a failed job: the last line of its traceback, at most ERROR_CHARS_MAX characters."""
    reason: str | None = None
    """As in JobRecord."""
    ended_at: datetime | None = None
    """When it completed, failed or was cancelled; None before."""


@runtime_checkable
class Results(Protocol):
    """A store that keeps results."""

    def get_results(self, ids: Sequence[str]) -> list[JobResult]:
        """Those of the jobs that exist among `ids` (at most 1,000), in any order, each once.

        Cheap enough to be asked several times a second: it reads no payload and no whole traceback.
        """
        ...


def last_line(text: str) -> str:
    """The last line of a traceback that is not empty, cut to ERROR_CHARS_MAX; for `JobResult.error`."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")[:ERROR_CHARS_MAX]
