"""A suspect is a job whose workers died twice while they had it. docs/decisions/0028.

It runs in a child process of its own, so that only the child dies if it is a killer. Where no child can run it, a
worker holds one such job at a time: if the worker dies, that speaks against this job alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from protojobs.port.lifecycle import SUSPECT_RECLAIMS
from protojobs.port.records import ClaimedJob

__all__ = ["Suspects"]


class Suspects:
    """Judges jobs. `has_child(name)`: whether a child process can run jobs of that name."""

    def __init__(self, has_child: Callable[[str], bool]) -> None:
        self._has_child = has_child

    def must_be_alone(self, job: ClaimedJob) -> bool:
        """Whether it is a suspect that this process must run itself."""
        return job.reclaims >= SUSPECT_RECLAIMS and not self._has_child(job.job_name)

    def surplus(self, waiting: Iterable[ClaimedJob], running: Collection[ClaimedJob | None]) -> list[ClaimedJob]:
        """Of those that wait, the ones to give back so that this worker holds one in all."""
        alone = [job for job in waiting if self.must_be_alone(job)]
        is_first = not any(job is not None and self.must_be_alone(job) for job in running)
        return alone[is_first:]

    def is_beside_another(self, key: tuple[str, int], held: Iterable[ClaimedJob | None]) -> bool:
        """Whether among what this worker holds there is such a job with another key."""
        return any(job is not None and (job.id, job.claim_seq) != key and self.must_be_alone(job) for job in held)
