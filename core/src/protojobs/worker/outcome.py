"""What a run became, as its worker stores it, and what a whole `work()` came to."""

from __future__ import annotations

from datetime import datetime
from typing import TypedDict, Unpack

from msgspec import Struct

from protojobs.port.lifecycle import Verb
from protojobs.port.records import ClaimedJob, Settlement

__all__ = ["Details", "Outcome", "WorkReport", "settlement"]


class Outcome(Struct, frozen=True, kw_only=True):
    """What one run decided. Executors return it and never touch the store; the worker sends its settlement."""

    claimed: ClaimedJob
    settlement: Settlement
    result: object = None
    exception: BaseException | None = None
    duration_s: float = 0.0
    was_run: bool = True  # whether it counts as a run: not where the job's own code could not be called


class WorkReport(Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """What a `work()` did: jobs completed, jobs given up, runs in all, and why it returned.

    `late`: results that were not recorded because their lease was lost meanwhile; those jobs run again elsewhere.

    `reason`: `empty` (nothing was due), `max_jobs`, `max_time`, `stopped` (its stop token or a signal), `memory`,
    `stuck` (a run could not be ended: its thread still works, see the log).
    """

    done: int
    failed: int
    runs: int
    reason: str
    late: int = 0


class Details(TypedDict, total=False):
    """The fields of a Settlement beside its fence and verb."""

    delay: float
    available_at: datetime | None
    error: str
    fingerprint: str
    reason: str
    counts_return: bool
    counts_crash: bool


def settlement(claimed: ClaimedJob, verb: Verb, **details: Unpack[Details]) -> Settlement:
    """A settlement of this very claim."""
    return Settlement(id=claimed.id, claim_seq=claimed.claim_seq, reserved_by=claimed.reserved_by, verb=verb, **details)
