"""What people do to the jobs: cancel, retry, forget, clear, pause, prune."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct, convert
from msgspec.msgpack import Decoder
from msgspec.structs import replace

from protojobs.port.records import CancelAnswer, Cleared, Pruned, RetryAnswer
from protojobs.port.rules import check_batch, check_name
from protojobs_redis.packing import encode, micros, texts
from protojobs_redis.prune_cursor import Ages, Position, PruneCursor, PruneCursors
from protojobs_redis.runner import ScriptRunner

__all__ = ["cancel", "clear", "forget_failed", "pause", "prune", "resume", "retry_failed"]

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
    go_on: Position


_cleared, _pruned = Decoder(_Cleared), Decoder(_Pruned)


def cancel(scripts: ScriptRunner, ids: Sequence[str], reason: str) -> list[CancelAnswer]:
    """Cancel pending jobs, and mark those that run."""
    check_batch(ids)
    return [_CANCELLED[letter] for letter in scripts.letters("cancel", texts(ids), reason)]


def retry_failed(scripts: ScriptRunner, failed_ids: Sequence[str]) -> list[RetryAnswer]:
    """Requeue the jobs of these rows of failed_jobs."""
    check_batch(failed_ids)
    return [_RETRIED[letter] for letter in scripts.letters("retry_failed", texts(failed_ids))]


def forget_failed(scripts: ScriptRunner, failed_ids: Sequence[str]) -> int:
    """Delete the jobs of these rows of failed_jobs; how many there were."""
    check_batch(failed_ids)
    return scripts.number("forget_failed", texts(failed_ids))


def clear(scripts: ScriptRunner, queue: str, limit: int) -> Cleared:
    """Delete jobs of the queue that do not run; at most 1,000 at once."""
    step = scripts.decoded(_cleared, "clear", queue, max(1, min(limit, ROUND_MAX)))
    return convert(step, Cleared, from_attributes=True)


def pause(scripts: ScriptRunner, queue: str) -> bool:
    """Let no job of the queue be claimed; False if that is so already."""
    check_name("queue", queue)
    return scripts.number("pause", queue) == 1


def resume(scripts: ScriptRunner, queue: str) -> bool:
    """Undo `pause`; False if it was not paused."""
    return scripts.number("resume", queue) == 1


def prune(
    scripts: ScriptRunner,
    cursors: PruneCursors,
    completed_older_than: float | None,
    failed_older_than: float | None,
    limit: int,
) -> Pruned:
    """Delete jobs that ended so many seconds ago.

    Goes round, queue by queue, each of its scripts one bounded step. Of very many queues one call does not come to the
    last; the next call goes on there. So `has_more` says that this round has not come to its end, also where nothing
    was deleted.
    """
    ages: Ages = tuple(
        "" if age is None else str(micros(age))
        for age in (completed_older_than, failed_older_than, completed_older_than)
    )
    before = cursors.get(ages)
    cursor = before or PruneCursor()
    following: PruneCursor | None = cursor
    total = Pruned(has_more=True)
    for _ in range(PRUNE_STEPS_MAX):
        left = limit - total.total
        step = scripts.decoded(_pruned, "prune", encode(cursor.at), *ages, max(0, min(left, ROUND_MAX)))
        total = Pruned(
            completed=total.completed + step.completed,
            failed=total.failed + step.failed,
            cancelled=total.cancelled + step.cancelled,
            has_more=True,
        )
        if step.has_more and total.total >= limit:
            # Nobody knows what becomes due before the next call: that one goes all the way round.
            following = PruneCursor(step.go_on, step.go_on)
            break
        following = cursor.behind(step.go_on)
        if following is None:
            total = replace(total, has_more=False)
            break
        cursor = following
    cursors.keep(ages, following, instead_of=before)
    return total
