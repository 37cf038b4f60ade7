"""`python3 benchmarks/archived.py`: what a job costs PostgreSQL from claim to prune, with an archive and without.

    python3 benchmarks/archived.py                     20,000 jobs behind 100,000 others; half a minute
    python3 benchmarks/archived.py --jobs 100000

Counted, not timed, so a busy machine changes nothing: pages that were taken up, each time, by table and index; bytes
of write-ahead log; calls. The jobs are claimed and completed a hundred at a time; two days later they are pruned as a
worker does it, and the tables are vacuumed. The pages of the system's catalogs, which dropping a partition touches, are
not among those that are counted.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import LiteralString

import psycopg

import stores
from filling import Backlog, fill
from options import positive
from protojobs import create_driver
from protojobs.entropy import fresh_id
from protojobs.port.driver import Store
from protojobs.port.records import ClaimedJob, NewJob
from shapes import BATCH, DAY_S, Bench, metered
from stores import servers
from touched import PAGES, Counts, Meter

BEHIND = 100_000  # jobs that stay where they are
PRUNED = 1_000  # jobs in one call, as a worker's upkeep does
RESEND_S = 3_600.0
MODES = ("in place", "archive")
WAL, CALLS, SIZE = "WAL bytes", "calls", "bytes"
TOLD = 3  # tables and indexes that are named


def main(words: list[str]) -> int:
    """Measure both, and print them side by side."""
    parser = argparse.ArgumentParser(
        prog="archived", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--jobs", type=positive, default=20_000, help="how many are completed and pruned (20000)")
    jobs = -(-parser.parse_args(words).jobs // BATCH) * BATCH
    found: dict[str, dict[str, Counts]] = {}
    with tempfile.TemporaryDirectory(prefix="protojobs-archived-") as folder:
        with stores.running(["postgresql"], is_durable=False) as urls:
            for mode in MODES:
                with stores.empty("postgresql", urls["postgresql"], Path(folder)) as url:
                    found[mode] = dict(measured(url, mode, jobs))
    print(f"{'for each job':24}{'':12}{MODES[0]:>12}{MODES[1]:>12}")
    for phase in found[MODES[0]]:
        for line in lines(phase, [found[mode][phase] for mode in MODES], jobs):
            print(line)
    return 0


def measured(url: str, mode: str, jobs: int) -> Iterator[tuple[str, Counts]]:
    """What each phase touches, in all."""
    option = "?archive=daily" if mode == "archive" else ""
    driver = create_driver(url + option)
    driver.setup()
    fill(driver, Backlog(BATCH))
    fill(driver, Backlog(BEHIND, queue="behind"))
    driver.close()  # a meter counts what goes over connections that it has seen opening
    with (
        psycopg.connect(servers.plain(url), autocommit=True, connect_timeout=10) as admin,
        metered(driver, url) as meter,
    ):
        admin.execute("VACUUM ANALYZE jobs")
        yield "push", counted(admin, meter, lambda: pushed(driver, jobs))
        bench = Bench(driver, ["default"])
        held = bench.turn()  # connections open, statements are planned
        admin.execute("CHECKPOINT")
        yield "claim and settle", counted(admin, meter, lambda: turns(bench, held, jobs))
        yield "jobs and its indexes", Counter({SIZE: size_of_jobs(admin)})
        admin.execute("CHECKPOINT")
        yield "prune", counted(admin, meter, lambda: pruned(driver, jobs))
        yield "vacuum after it", counted(admin, meter, lambda: vacuumed(admin))
        driver.close()


def counted(admin: psycopg.Connection[tuple[object, ...]], meter: Meter, action: Callable[[], int]) -> Counts:
    """What the action touched, what it wrote to the log, and how many calls it says that it made."""
    calls = [0]
    with logged(admin) as log:
        counts = meter.of(lambda: calls.__setitem__(0, action()))
    # A table that was dropped meanwhile has taken its figures along.
    places = {name: count for name, count in counts.items() if name != PAGES and count > 0}
    return Counter(places | {PAGES: sum(places.values()), WAL: log[0], CALLS: calls[0]})


@contextmanager
def logged(admin: psycopg.Connection[tuple[object, ...]]) -> Iterator[list[int]]:
    """The bytes that were written to the log during the block."""
    here: LiteralString = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
    before = int(str(admin.execute(here).fetchall()[0][0]))
    found: list[int] = []
    yield found
    found.append(int(str(admin.execute(here).fetchall()[0][0])) - before)


def size_of_jobs(admin: psycopg.Connection[tuple[object, ...]]) -> int:
    """On disk, with what is dead."""
    return int(str(admin.execute("SELECT pg_total_relation_size('jobs')").fetchall()[0][0]))


def pushed(driver: Store, jobs: int) -> int:
    """Push so many, a hundred at a time."""
    for _ in range(jobs // BATCH):
        driver.enqueue(
            [NewJob(id=fresh_id(), queue="default", job_name="noop", job_class="c", data="{}") for _ in range(BATCH)]
        )
    return jobs // BATCH


def turns(bench: Bench, held: list[ClaimedJob], jobs: int) -> int:
    """Complete so many jobs, claiming as many more."""
    count = jobs // BATCH
    for _ in range(count):
        held = bench.turn(held)
    return count


def pruned(driver: Store, jobs: int) -> int:
    """Prune the jobs two days later."""
    driver.time_offset = 2 * DAY_S + 60  # type: ignore[attr-defined]
    gone, calls, has_more = 0, 0, True
    while has_more:
        round_ = driver.prune(completed_older_than=DAY_S, limit=PRUNED)
        gone, calls, has_more = gone + round_.completed, calls + 1, round_.has_more
    assert gone == jobs, f"{gone} of {jobs} were pruned"
    return calls


def vacuumed(admin: psycopg.Connection[tuple[object, ...]]) -> int:
    """As autovacuum would."""
    admin.execute("VACUUM jobs")
    return 1


def lines(phase: str, both: list[Counts], jobs: int) -> Iterator[str]:
    """The lines of one phase: sums, and where most pages are."""
    if SIZE in both[0]:
        yield f"{phase:24}{SIZE:12}" + "".join(f"{counts[SIZE] / jobs:12.2f}" for counts in both)
        return
    for what in (PAGES, WAL):
        yield f"{phase:24}{what:12}" + "".join(f"{counts[what] / jobs:12.2f}" for counts in both)
    yield f"{phase:24}{CALLS + ' in all':12}" + "".join(f"{counts[CALLS]:12,}" for counts in both)
    for mode, counts in zip(MODES, both, strict=True):
        places = Counter({name: n for name, n in counts.items() if name not in (PAGES, WAL, CALLS)})
        told = ", ".join(f"{name} {n / jobs:.2f}" for name, n in places.most_common(TOLD) if n / jobs >= 0.005)
        yield f"{'':4}{mode}: {told or 'hardly any page'}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
