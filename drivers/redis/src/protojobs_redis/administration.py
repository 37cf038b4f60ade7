"""What people do to the jobs: cancel, retry, forget, clear, pause, prune."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.msgpack import Decoder
from msgspec.structs import replace

from protojobs.port.records import CancelAnswer, Cleared, Pruned, RetryAnswer
from protojobs.port.rules import check_name
from protojobs_redis.handle import Handle, check_batch
from protojobs_redis.packing import encode, micros, texts
from protojobs_redis.prune_cursor import Kind, Lap, Place

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
    go_on: Place


_cleared, _pruned = Decoder(_Cleared), Decoder(_Pruned)


class Administration(Handle):
    """The verbs of `protojobs.port.administration.Administers`, apart from the transfer; they are described there."""

    def cancel(self, ids: Sequence[str], *, reason: str = "") -> list[CancelAnswer]:
        """See Administers.cancel."""
        check_batch(ids)
        return [_CANCELLED[letter] for letter in self._letters("cancel", texts(ids), reason)]

    def retry_failed(self, ids: Sequence[str]) -> list[RetryAnswer]:
        """See Administers.retry_failed."""
        check_batch(ids)
        return [_RETRIED[letter] for letter in self._letters("retry_failed", texts(ids))]

    def forget_failed(self, ids: Sequence[str]) -> int:
        """See Administers.forget_failed."""
        check_batch(ids)
        return self._number("forget_failed", texts(ids))

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
        check_name("queue", queue)
        return self._number("pause", queue) == 1

    def resume(self, queue: str) -> bool:
        """See Administers.resume."""
        return self._number("resume", queue) == 1

    def prune(
        self,
        *,
        completed_older_than: float | None = None,
        failed_older_than: float | None = None,
        limit: int = 1_000,
    ) -> Pruned:
        """See Administers.prune.

        Goes round, queue by queue, each of its scripts one bounded step. Of very many queues one call does not come to
        the last; the next call goes on there. So `has_more` says that this round has not come to its end, also where
        nothing was found.
        """
        kind: Kind = tuple(
            "" if age is None else str(micros(age))
            for age in (completed_older_than, failed_older_than, completed_older_than)
        )
        before = self._laps.left(kind)
        lap = before or Lap()
        rest: Lap | None = lap
        total = Pruned(has_more=True)
        for _ in range(PRUNE_STEPS_MAX):
            left = limit - total.total
            step = self._packed(_pruned, "prune", encode(lap.at), *kind, max(0, min(left, ROUND_MAX)))
            total = Pruned(
                completed=total.completed + step.completed,
                failed=total.failed + step.failed,
                cancelled=total.cancelled + step.cancelled,
                has_more=True,
            )
            if step.has_more and total.total >= limit:
                rest = Lap(step.go_on, step.go_on)  # nobody knows what becomes due before the next call: all the way
                break
            rest = lap.behind(step.go_on)
            if rest is None:
                total = replace(total, has_more=False)
                break
            lap = rest
        self._laps.keep(kind, rest, instead_of=before)
        return total
