"""How much more a turn may touch at the large depth, and the table that says how much more it does."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from shapes import BATCH, QUEUES, ROUNDS
from touched import COMMANDS, PAGES, STEPS, Counts

GROWTH = 1.3  # of pages. One level more in PostgreSQL's primary key is 200 pages to 100 jobs: a fifth of a claim
SAME = 1.02  # of steps and commands, which have nothing to do with the height of a tree

# So many rows to one are a level more in an index at most: the entries in one of its inner pages, when half full.
FANOUT = {"sqlite": 40, "postgresql": 150}
# SQLite's pages are counted once each, and neighbours share theirs, so that 100 jobs take some twenty. A level more in
# each of the trees that a turn goes into (jobs, its ids, the ready, the processing, the finished) is more than a third.
TREES = {"sqlite": 5, "postgresql": 0}
# A look into a lane goes down jobs_ready. In a large store each lane has pages of its own there: the leaf where it
# begins, its neighbour, and the one above them.
LANE_PAGES = 2.5
# PostgreSQL's are counted each time: how often a turn goes down for a lane, with a level more each time.
LANE_LOOKS = {"look and claim": 3, "claim": 1, "settle and claim": 1, "settle": 0}


@dataclass(frozen=True)
class Finding:
    """A count in two situations, for 100 jobs, and the bound of the second; None: it is told, and not judged."""

    store: str
    shape: str
    verb: str
    what: str
    before: float
    after: float
    bound: float | None
    situations: tuple[str, str]
    places: Mapping[str, tuple[float, float]]

    @property
    def ratio(self) -> float:
        """How much it grew."""
        return self.after / self.before if self.before else math.inf

    @property
    def complaint(self) -> str:
        """What is wrong with it, or nothing."""
        if self.bound is None or self.after <= self.bound:
            return ""
        grown = {name: pair for name, pair in self.places.items() if pair[1] > pair[0]}
        dearest = sorted(grown.items(), key=lambda item: item[1][0] - item[1][1])[:5]
        where = ", ".join(f"{name} {_number(was)} -> {_number(now)}" for name, (was, now) in dearest)
        return (
            f"{self.store}, {self.shape}: {self.verb} touches {_number(self.after)} {self.what} {self.situations[1]}, "
            f"{_number(self.before)} {self.situations[0]}; more than {_number(self.bound)} is TOO MUCH"
        ) + (f" ({where})" if where else "")


def compared(
    store: str, shape: str, depths: tuple[int, int], found: tuple[Mapping[str, Counts], Mapping[str, Counts]]
) -> Iterator[Finding]:
    """What each verb touches at both depths."""
    small, large = found
    situations = (f"at {depths[0]:,}", f"at {depths[1]:,}")
    for verb in small:
        before, after = ({name: count / ROUNDS for name, count in one[verb].items()} for one in found)
        places = {name: (before.get(name, 0), after.get(name, 0)) for name in before | after}
        for what in (PAGES, STEPS, COMMANDS):
            if pair := places.pop(what, None):
                bound = _bound(store, shape, verb, what, pair[0], depths)
                yield Finding(store, shape, verb, what, *pair, bound, situations, places)


def _bound(store: str, shape: str, verb: str, what: str, small: float, depths: tuple[int, int]) -> float:
    if what != PAGES:
        return SAME * small
    levels = levels_more(store, depths[1] / depths[0])
    lanes = QUEUES if shape == "queues" else 0
    own = LANE_PAGES * min(1, LANE_LOOKS[verb]) if store == "sqlite" else levels * LANE_LOOKS[verb]
    return max(GROWTH * small, small + levels * TREES[store]) + lanes * own


def levels_more(store: str, growth: float) -> int:
    """How many levels more an index may have when there are so many times as many rows."""
    return math.ceil(math.log(max(1.0, growth), FANOUT[store]))


def table(found: Sequence[Finding]) -> str:
    """Aligned columns, a group of lines for each store and shape."""
    head = ("", "", "before", "after", "ratio", "bound")
    rows = [
        (one.verb, one.what, *map(_number, (one.before, one.after)), f"{one.ratio:.2f}", _number(one.bound))
        for one in found
    ]
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    lines: list[str] = []
    last = ""
    for one, row in zip(found, rows, strict=True):
        title = f"{one.store}, {one.shape}: {one.situations[0]} | {one.situations[1]}, for {BATCH} jobs"
        if title != last:
            lines += ["", title]
            last = title
        lines.append(_line(row, widths) + ("  TOO MUCH" if one.complaint else ""))
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 1_000 else f"{value:.1f}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    left = [cell.ljust(width) for cell, width in zip(cells[:2], widths, strict=False)]
    right = [cell.rjust(width) for cell, width in zip(cells[2:], widths[2:], strict=True)]
    return "  ".join(("", *left, *right)).rstrip()
