"""Backoff: how many seconds a failed job waits before its next attempt. Its jitter is derived, not random."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import msgspec

from protojobs.entropy import stable_fraction
from protojobs.errors import OptionInvalid
from protojobs.names import DELAY_MAX_S, check_seconds

__all__ = ["CAP_S", "DEFAULT_BACKOFF", "Backoff", "as_backoff", "from_policy", "to_policy"]

CAP_S = 6 * 3600.0  # a retry that waits longer than a working day helps nobody; never below the job's own retry_delay
_EXPONENT_MAX = 60  # 2 ** 60 seconds is far beyond any cap; keeps the power from overflowing
_DELAYS_MAX = 100
FACTOR_MAX = 1_000  # to the sixtieth it still is a float


class Backoff(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """When the next attempt comes after attempt n failed.

    With `delays` the n-th of them, the last one again and again; otherwise `retry_delay * factor ** (n - 1)`, at most
    `cap` seconds (never below `retry_delay`). On top comes a jitter of 0 to `jitter` times the delay, derived from
    the job's id and the attempt: "next retry at" is exact, and a thousand jobs that failed together spread out.
    """

    delays: tuple[float, ...] = ()
    factor: float = 2.0
    cap: float = CAP_S
    jitter: float = 0.25

    def __post_init__(self) -> None:
        for delay in self.delays:
            check_seconds("a delay in backoff", delay)
        check_seconds("cap", self.cap)
        for what, value, lowest, highest in (("factor", self.factor, 1, FACTOR_MAX), ("jitter", self.jitter, 0, 1)):
            if not lowest <= value <= highest:  # NaN too
                raise OptionInvalid(f"{what} is {value}.", mend=f"It goes from {lowest} to {highest}.")

    def delay(self, attempt: int, retry_delay: float, job_id: str) -> float:
        """Seconds to wait after `attempt` (counted from 1) failed."""
        if self.delays:
            base = self.delays[min(attempt, len(self.delays)) - 1]
        else:
            base = retry_delay * self.factor ** min(attempt - 1, _EXPONENT_MAX)
            base = min(max(self.cap, retry_delay), base)
        return min(DELAY_MAX_S, max(0.0, base) * (1 + self.jitter * stable_fraction(job_id, attempt)))


DEFAULT_BACKOFF = Backoff()


def as_backoff(value: Backoff | Sequence[float | timedelta] | None) -> Backoff | None:
    """What a user may write for `backoff`: a Backoff, or a list of delays. None: the default policy."""
    if value is None or isinstance(value, Backoff):
        return value
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise OptionInvalid(f"backoff must be a Backoff or a list of seconds, not {type(value).__name__}.")
    if not 1 <= len(value) <= _DELAYS_MAX:
        raise OptionInvalid(f"backoff lists {len(value)} delays.", mend=f"Give 1 to {_DELAYS_MAX}.")
    return Backoff(delays=tuple(check_seconds("a delay in backoff", delay) for delay in value))


def to_policy(backoff: Backoff | None) -> str | None:
    """The text that travels with a job; None for the default policy."""
    return None if backoff is None or backoff == DEFAULT_BACKOFF else msgspec.json.encode(backoff).decode()


def from_policy(policy: str | None) -> Backoff:
    """The policy that came with a job. A text that is none (a newer version's, a hand-edited row) is the default."""
    if not policy:
        return DEFAULT_BACKOFF
    try:
        return msgspec.json.decode(policy, type=Backoff)
    except (msgspec.DecodeError, UnicodeError):
        return DEFAULT_BACKOFF
