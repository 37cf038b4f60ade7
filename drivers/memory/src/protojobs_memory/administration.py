"""What people do to the jobs of a memory store: cancel, retry, forget, clear, pause, prune."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from itertools import islice

from protojobs.port.lifecycle import TRANSITIONS, JobState, Verb
from protojobs.port.records import CancelAnswer, Cleared, Pruned, RetryAnswer
from protojobs.port.rules import check_batch
from protojobs_memory.handle import Handle
from protojobs_memory.state import Row

__all__ = ["Administration"]


class Administration(Handle):
    """The verbs of `protojobs.port.administration.Administers`, apart from the transfer; they are described there."""

    def cancel(self, ids: Sequence[str], *, reason: str = "") -> list[CancelAnswer]:
        """See Administers.cancel."""
        check_batch(ids)
        with self.state.lock:
            return [self._cancel_one(job_id, reason) for job_id in ids]

    def _cancel_one(self, job_id: str, reason: str) -> CancelAnswer:
        row, now = self.state.rows.get(job_id), self.now()
        if row is None:
            return CancelAnswer.MISSING
        if (row.state, Verb.CANCEL) not in TRANSITIONS:
            return CancelAnswer.FINISHED
        row.reason = reason or row.reason
        if row.state is JobState.PROCESSING:  # its worker decides; the mark outlives it
            row.cancel_requested_at = row.cancel_requested_at or now
            return CancelAnswer.REQUESTED
        self.state.move(row, Verb.CANCEL, JobState.CANCELLED, now)
        return CancelAnswer.CANCELLED

    def retry_failed(self, ids: Sequence[str]) -> list[RetryAnswer]:
        """See Administers.retry_failed."""
        check_batch(ids)
        with self.state.lock:
            answers = [self._retry_one(failed_id) for failed_id in ids]
            self.state.ring()
            return answers

    def _retry_one(self, failed_id: str) -> RetryAnswer:
        row = self._failed_row(failed_id)
        if row is None:
            return RetryAnswer.MISSING
        if (row.state, Verb.RETRY_FAILED) not in TRANSITIONS:
            return RetryAnswer.CONFLICT
        row.attempts = row.crashes = row.returns = row.reclaims = 0
        row.claim_seq += 1
        self.state.drop_failure(row)
        self.state.move(row, Verb.RETRY_FAILED, JobState.PENDING, self.now())
        return RetryAnswer.REQUEUED

    def forget_failed(self, ids: Sequence[str]) -> int:
        """See Administers.forget_failed."""
        check_batch(ids)
        with self.state.lock:
            rows = [row for failed_id in dict.fromkeys(ids) if (row := self._failed_row(failed_id))]
            rows = [row for row in rows if (row.state, Verb.FORGET) in TRANSITIONS]
            for row in rows:
                self.state.remove(row, Verb.FORGET)
            return len(rows)

    def _failed_row(self, failed_id: str) -> Row | None:
        failure = self.state.failed.get(failed_id)
        return self.state.rows[failure.job_id] if failure else None

    def clear(self, queue: str, *, limit: int = 1_000) -> Cleared:
        """See Administers.clear."""
        with self.state.lock:
            known = self.state.queues.get(queue)
            clearable = (row for row in known.rows.values() if (row.state, Verb.CLEAR) in TRANSITIONS) if known else ()
            rows = list(islice(clearable, limit + 1))
            has_more = len(rows) > limit
            counts = self._remove(rows[:limit], Verb.CLEAR)
            return Cleared(
                pending=counts[JobState.PENDING],
                completed=counts[JobState.COMPLETED],
                failed=counts[JobState.FAILED],
                cancelled=counts[JobState.CANCELLED],
                has_more=has_more,
            )

    def _remove(self, rows: Sequence[Row], verb: Verb) -> Counter[JobState]:
        counts = Counter(row.state for row in rows)
        for row in rows:
            self.state.remove(row, verb)
        return counts

    def pause(self, queue: str) -> bool:
        """See Administers.pause."""
        with self.state.lock:
            known = self.state.queue(queue)
            was_paused, known.is_paused = known.is_paused, True
            return not was_paused

    def resume(self, queue: str) -> bool:
        """See Administers.resume."""
        with self.state.lock:
            known = self.state.queues.get(queue)
            if known is None or not known.is_paused:
                return False
            known.is_paused = False
            if not known.rows:
                del self.state.queues[queue]
            self.state.ring()
            return True

    def prune(
        self,
        *,
        completed_older_than: float | None = None,
        failed_older_than: float | None = None,
        limit: int = 1_000,
    ) -> Pruned:
        """See Administers.prune."""
        ages = {
            JobState.COMPLETED: completed_older_than,
            JobState.CANCELLED: completed_older_than,
            JobState.FAILED: failed_older_than,
        }
        with self.state.lock:
            now = self.now()
            prunable = (
                self.state.rows[job_id]
                for state, age in ages.items()
                if age is not None
                for _, job_id in self.state.ended[state].below((now - timedelta(seconds=age), ""))
            )
            rows = list(islice(prunable, limit + 1))
            has_more = len(rows) > limit
            counts = self._remove(rows[:limit], Verb.PRUNE)
            return Pruned(
                completed=counts[JobState.COMPLETED],
                failed=counts[JobState.FAILED],
                cancelled=counts[JobState.CANCELLED],
                has_more=has_more,
            )
