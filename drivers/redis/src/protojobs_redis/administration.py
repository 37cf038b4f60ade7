"""What people do to the jobs: cancel, retry, forget, clear, pause, prune."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.msgpack import Decoder

from protojobs.records import CancelAnswer, Cleared, Pruned, RetryAnswer
from protojobs_redis.handle import Handle, check_batch
from protojobs_redis.packing import encode, micros

__all__ = ["Administration"]

ROUND_MAX = 1_000  # jobs that one script removes
PRUNE_STEPS_MAX = 50  # scripts of one prune, each of which looks at 2,000 jobs or 100 queues

_CANCELLED = {
    "x": CancelAnswer.CANCELLED,
    "r": CancelAnswer.REQUESTED,
    "f": CancelAnswer.FINISHED,
    "m": CancelAnswer.MISSING,
}
_RETRIED = {"r": RetryAnswer.REQUEUED, "c": RetryAnswer.CONFLICT, "m": RetryAnswer.MISSING}


class _Cleared(Struct, array_like=True):
    pending: int
    completed: int
    failed: int
    cancelled: int
    has_more: bool


class _Pruned(Struct, array_like=True):
    completed: int
    failed: int
    cancelled: int
    has_more: bool
    go_on: tuple[str | int, ...]


_cleared, _pruned = Decoder(_Cleared), Decoder(_Pruned)


class Administration(Handle):
    """The verbs of `protojobs.protocols.Administers` but for the transfer; their promises are written there."""

    def cancel(self, ids: Sequence[str], *, reason: str = "") -> list[CancelAnswer]:
        """See Administers.cancel."""
        check_batch(ids)
        return [_CANCELLED[letter] for letter in self._letters("cancel", encode(ids), reason)]

    def retry_failed(self, ids: Sequence[str]) -> list[RetryAnswer]:
        """See Administers.retry_failed."""
        check_batch(ids)
        return [_RETRIED[letter] for letter in self._letters("retry_failed", encode(ids))]

    def forget_failed(self, ids: Sequence[str]) -> int:
        """See Administers.forget_failed."""
        check_batch(ids)
        return self._number("forget_failed", encode(ids))

    def clear(self, queue: str, *, limit: int = 1_000) -> Cleared:
        """See Administers.clear. A limit above 1,000 is as good as 1,000."""
        step = self._packed(_cleared, "clear", queue, max(1, min(limit, ROUND_MAX)))
        return Cleared(
            pending=step.pending,
            completed=step.completed,
            failed=step.failed,
            cancelled=step.cancelled,
            has_more=step.has_more,
        )

    def pause(self, queue: str) -> bool:
        """See Administers.pause."""
        return self._number("pause", queue) == 1

    def resume(self, queue: str) -> bool:
        """See Administers.resume."""
        return self._number("resume", queue) == 1

    def prune(
        self,
        *,
        completed_older_than: float | None = None,
        failed_older_than: float | None = None,
        arrived_before: float = 0.0,
        limit: int = 1_000,
    ) -> Pruned:
        """See Administers.prune.

        Goes queue by queue, each of its scripts one bounded step. What is passed over because it came lately is passed
        over for no longer than `arrived_before`, so a round that has looked at very much may end there.
        """
        ages = [
            "" if age is None else str(micros(age))
            for age in (completed_older_than, failed_older_than, completed_older_than)
        ]
        total = Pruned()
        go_on: tuple[str | int, ...] = ("", 1, 0)
        for _ in range(PRUNE_STEPS_MAX):
            left = limit - total.total
            step = self._packed(
                _pruned, "prune", encode(go_on), *ages, micros(arrived_before), max(0, min(left, ROUND_MAX))
            )
            total = Pruned(
                completed=total.completed + step.completed,
                failed=total.failed + step.failed,
                cancelled=total.cancelled + step.cancelled,
                has_more=step.has_more,
            )
            if not step.go_on or (step.has_more and total.total >= limit):
                break
            go_on = step.go_on
        return total
