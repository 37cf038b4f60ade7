"""The round trips of one worker that are on their way while its claim loop goes on. docs/decisions/0025, 0034.

At most one of them claims, so jobs arrive in the order in which the store lends them. Where the store answers two calls
at once, another may settle beside it: results of different claims have no order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from protojobs.port.records import BATCH_BYTES_MAX, BATCH_JOBS_MAX, payload_bytes
from protojobs.worker.outcome import Outcome
from protojobs.worker.plan import Plan

__all__ = ["Trips"]

Key = tuple[str, int]  # (id, claim_seq): one run of one job


class Trips:
    """Between `sent` and `returned` the outcomes of a plan are the store's to answer for, and are not sent again."""

    def __init__(self, count_max: int) -> None:
        self.count = 0
        self.count_max = count_max
        self.is_claiming = False  # one of them
        self.claims = 0  # such trips so far
        self.is_woken = False  # the store has told of a job since that one left
        self.is_unsure = False  # a reply was lost: the next trip is alone, and asks the store what we hold
        self._results = set[Key]()

    def sent(self, plan: Plan) -> None:
        """The plan's results and its claim are on their way."""
        self.count += 1
        self._results.update([(outcome.settlement.id, outcome.settlement.claim_seq) for outcome in plan.settle])
        if plan.limit:
            self.is_claiming, self.is_woken = True, False
            self.claims += 1

    def returned(self, plan: Plan) -> None:
        """That trip is over, with or without a reply."""
        self.count -= 1
        self._results.difference_update(
            [(outcome.settlement.id, outcome.settlement.claim_seq) for outcome in plan.settle]
        )
        if plan.limit:
            self.is_claiming = False

    @property
    def has_room(self) -> bool:
        """Whether one more may be sent."""
        return not self.count or (self.count < self.count_max and not self.is_unsure)

    @property
    def results(self) -> int:
        """How many results are on their way."""
        return len(self._results)

    def others(self, unsettled: Mapping[Key, Outcome]) -> tuple[Outcome, ...]:
        """The first of these results that are not on their way, as many as one trip takes."""
        left = list(unsettled.values())
        if self._results:
            left = [outcome for key, outcome in unsettled.items() if key not in self._results]
        left = left[:BATCH_JOBS_MAX]
        if any([outcome.settlement.then or outcome.settlement.result is not None for outcome in left]):
            return tuple(_within_bounds(left))
        return tuple(left)


def _within_bounds(outcomes: Sequence[Outcome]) -> Iterator[Outcome]:
    """The first of them, at least one, as long as what they carry fits into one call of `settle`."""
    jobs = job_bytes = result_bytes = 0
    for place, outcome in enumerate(outcomes):
        said = outcome.settlement
        jobs += len(said.then)
        job_bytes += sum([payload_bytes(job.data) for job in said.then])
        result_bytes += payload_bytes(said.result or "")
        if place and (jobs > BATCH_JOBS_MAX or max(job_bytes, result_bytes) > BATCH_BYTES_MAX):
            return
        yield outcome
