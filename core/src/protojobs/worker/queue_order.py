"""In which order a worker's claims ask its queues: one after the other, by weight, or in fair turn. No clock, no I/O.

A worker is told what to serve in one of three ways: names in strict order (`urgent`, `default`), names with weights
(`urgent=5`, `bulk=1`), or nothing, which means every queue that its jobs name. A `*` in a name stands for any text. A
claim asks all queues in one call; only their order differs from claim to claim.

Queues that stand side by side are asked by start-time fair queueing. Each has a mark, how many of its jobs were lent
divided by its weight, and the one with the lowest mark is asked first. So every queue that has jobs gets its share of
the jobs that are lent, and none waits for ever. A queue that was empty meanwhile begins at the mark of those that were
not: it has no right to what it did not need.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from protojobs.config import Settings
from protojobs.errors import OptionInvalid
from protojobs.jobs.definition import Registry
from protojobs.names import QUEUES_MAX, check_served, served_queue
from protojobs.port.records import ClaimedJob, QueueInfo

__all__ = ["EVERY_QUEUE", "QueueOrder", "queue_order"]

EVERY_QUEUE = "*"


class _SideBySide:
    """Queues of equal rank, with their weights."""

    def __init__(self) -> None:
        self.weights: Mapping[str, int] = {}
        self._marks: dict[str, float] = {}
        self._mark = 0.0  # of the queue that was lent from last: where one that was empty begins

    def become(self, weights: Mapping[str, int]) -> None:
        """Queues have come or gone; the others keep their marks."""
        if weights != self.weights:
            self.weights = weights
            self._marks = {name: mark for name, mark in self._marks.items() if name in weights}

    def order(self) -> list[str]:
        weights = self.weights
        return sorted(weights, key=lambda name: (self._begin(name), -weights[name]))

    def lent(self, jobs: Mapping[str, int]) -> None:
        begins = {name: self._begin(name) for name in jobs if name in self.weights}
        for name, begin in begins.items():
            self._marks[name] = begin + jobs[name] / self.weights[name]
        self._mark = max(begins.values(), default=self._mark)

    def _begin(self, name: str) -> float:
        return max(self._mark, self._marks.get(name, self._mark))


class QueueOrder:
    """What one worker serves, and the order for its next claim. Used by whoever is at a turn of the claim loop."""

    def __init__(self, told: Sequence[str], known: Iterable[str] = ()) -> None:
        """`told`: as above, checked. `known`: queues that a `*` may stand for though the store has none of their jobs.

        The store's queues are told by `found`.
        """
        self.told = tuple(told)
        self._entries = [served_queue(text) for text in told]
        self._known = frozenset(known)
        self._has_weights = any(entry.weight is not None for entry in self._entries)
        self._levels = [_SideBySide() for _ in self._entries[: 1 if self._has_weights else None]]
        self.is_open = any(entry.is_wildcard for entry in self._entries)  # queues come and go
        self.names: Sequence[str] = ()  # at present, in the order in which they were told
        self.takes_turns = False  # whether one claim's order is not that of the next
        self.found(())

    @property
    def words(self) -> str:
        """What is served and how, for people: `urgent, default, in this order`."""
        if any(entry.weight not in (None, 1) for entry in self._entries):
            return f"{', '.join(self.told)}, by weight"
        names = ", ".join(self.names)
        if sum(bool(level.weights) for level in self._levels) > 1:
            names += ", in this order"
        elif self.takes_turns:
            names += ", in fair turn"
        patterns = ", ".join(entry.name for entry in self._entries if entry.is_wildcard)
        return f"{patterns} (now {names or 'none'})" if patterns else names

    def serves(self, queue: str) -> bool:
        """Whether this worker works that queue, or would if it had jobs."""
        return any(entry.matches(queue) for entry in self._entries)

    def found(self, queues: Iterable[QueueInfo]) -> None:
        """The store has these queues. Of more than a claim can ask, those whose jobs have waited longest are taken."""
        waited_s = dict.fromkeys(self._known, -1.0)
        waited_s |= {info.name: -1.0 if info.oldest_ready_s is None else info.oldest_ready_s for info in queues}
        waited_s |= {entry.name: math.inf for entry in self._entries if not entry.is_wildcard}
        matching = [name for name in waited_s if self.serves(name)]
        left = set(sorted(matching, key=lambda name: (-waited_s[name], name))[:QUEUES_MAX])
        groups: list[dict[str, int]] = []
        for entry in self._entries:
            names = sorted(name for name in left if entry.matches(name))
            groups.append(dict.fromkeys(names, entry.weight or 1))
            left.difference_update(names)
        if self._has_weights:
            groups = [{name: weight for group in groups for name, weight in group.items()}]
        for level, group in zip(self._levels, groups, strict=True):
            level.become(group)
        self.names = tuple(name for group in groups for name in group)
        self.takes_turns = any(len(group) > 1 for group in groups)

    def next(self) -> Sequence[str]:
        """The queues of the next claim, first those that it is to ask first."""
        return [name for level in self._levels for name in level.order()] if self.takes_turns else self.names

    def lent(self, jobs: Sequence[ClaimedJob]) -> None:
        """That claim has brought these jobs."""
        counted = Counter([job.queue for job in jobs])
        for level in self._levels:
            level.lent(counted)


def queue_order(
    queues: str | Sequence[str] | Mapping[str, int] | None, settings: Settings, registry: Registry
) -> QueueOrder:
    """What a worker serves that is told `queues`; None: the setting, or else every queue that a registered job names.

    Raises OptionInvalid.
    """
    if isinstance(queues, int):
        raise OptionInvalid(
            f"The first argument names queues; {queues} is no name.", mend=f"Try work(max_jobs={queues})."
        )
    default = settings.default_queue
    own = {registry.get(name).options.queue or default for name in registry} | {default}
    if queues is None:
        queues = settings.queues or (sorted(own) if len(own) == 1 else dict.fromkeys(sorted(own), 1))
    if isinstance(queues, Mapping):
        queues = [f"{name}={weight}" for name, weight in queues.items()]
    return QueueOrder(check_served([queues] if isinstance(queues, str) else queues), own)
