"""What a turn touches while another connection's transaction is open, which keeps every row version that dies.

The entries of jobs that were claimed stay in the index, in front of those that wait. A claim must not walk them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from backlogs import held_open
from bounds import GROWTH, Finding
from filling import Backlog
from shapes import BATCH, PER_ROUND, ROUNDS, Bench, metered, opened, rounds
from touched import PAGES, Counts

# A claim that gave up its floors begins at the front and walks past all the dead. It does so less often the longer that
# takes (docs/decisions/0020), so that it is told here, and not judged.
TOLD = ("look and claim",)
TURNS = 200  # between the two: 20,000 jobs, 40,000 dead versions; a few seconds of one busy worker
SITUATIONS = ("at first", f"after {TURNS * BATCH:,} jobs")


def measured(store: str, server: str, folder: Path) -> Iterator[Finding]:
    """Pages of each verb right after the transaction began, and when many jobs have run beside it."""
    rows = 2 * (ROUNDS + 1) * PER_ROUND + (TURNS + 10) * BATCH
    with opened(store, server, folder, [Backlog(rows)]) as (driver, url), metered(driver, url) as meter, held_open(url):
        bench = Bench(driver, ["default"])
        before = rounds(bench, meter)
        held = bench.turn()
        for _ in range(TURNS):
            held = bench.turn(held)
        bench.turn(held, limit=0)
        after = rounds(bench, meter)
    for verb in before:
        yield _finding(store, verb, before[verb], after[verb])


def _finding(store: str, verb: str, before: Counts, after: Counts) -> Finding:
    places = {name: (before[name] / ROUNDS, after[name] / ROUNDS) for name in before | after}
    pair = places.pop(PAGES)
    bound = None if verb in TOLD else GROWTH * pair[0]
    return Finding(store, "held", verb, PAGES, *pair, bound, SITUATIONS, places)
