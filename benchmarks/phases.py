"""Where a job's microseconds go: a worker's drain of no-op jobs, taken apart by thread and by store.

Processor time of each part, by the clock of its own thread, so that other threads and programs do not count; and how
long the claim loop waited for the store. The parts run beside each other: their sum is more than a job takes.
"""

from __future__ import annotations

import argparse
import collections
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

import counted
import stores

P = ParamSpec("P")
T = TypeVar("T")

COLUMNS = ("threads", "loop", "driver", "store")


class Watch:
    """Seconds of processor time and of the clock that the watched functions took."""

    def __init__(self) -> None:
        self.cpu: collections.Counter[str] = collections.Counter()
        self.wall: collections.Counter[str] = collections.Counter()

    def over(self, name: str, function: Callable[P, T]) -> Callable[P, T]:
        """The function, watched."""

        def watched(*args: P.args, **kwargs: P.kwargs) -> T:
            cpu, wall = time.thread_time(), time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.cpu[name] += time.thread_time() - cpu
                self.wall[name] += time.perf_counter() - wall

        return watched


def measure(url: str, folder: Path, *, jobs: int, concurrency: int) -> dict[str, float]:
    """Microseconds per job, and jobs a second."""
    os.environ[counted.FOLDER_VARIABLE] = str(folder)
    import bench_jobs
    from protojobs import JobQueue, create_driver
    from protojobs.worker import loop as worker
    from protojobs.worker.runs import threads

    watch = Watch()
    driver = create_driver(url)
    driver.setup()
    slot, claim_loop = threads._Slot, worker.Worker  # pyright: ignore[reportPrivateUsage]  (to look at it from outside)
    serve, loop = slot._serve, claim_loop._loop  # pyright: ignore[reportPrivateUsage]
    turn = type(driver).settle_and_claim
    try:
        slot._serve = watch.over("threads", serve)  # type: ignore[method-assign]
        claim_loop._loop = watch.over("loop", loop)  # type: ignore[method-assign]
        type(driver).settle_and_claim = watch.over("driver", turn)  # type: ignore[method-assign]
        queue = JobQueue(driver, {"concurrency": concurrency})
        queue.push_many(bench_jobs.noop.bind() for _ in range(jobs))
        stores.rest(url.partition(":")[0], url)
        began = time.perf_counter()
        queue.work(max_jobs=jobs)
        seconds = time.perf_counter() - began
        queue.close()
        time.sleep(0.2)  # the threads are on their way out, and are counted then
    finally:
        slot._serve, claim_loop._loop = serve, loop  # type: ignore[method-assign]
        type(driver).settle_and_claim = turn  # type: ignore[method-assign]
    per_job = 1e6 / jobs
    return {
        "rate": jobs / seconds,
        "threads": watch.cpu["threads"] * per_job,
        "loop": (watch.cpu["loop"] - watch.cpu["driver"]) * per_job,
        "driver": watch.cpu["driver"] * per_job,
        "store": (watch.wall["driver"] - watch.cpu["driver"]) * per_job,
    }


def main(arguments: Sequence[str]) -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="phases", description=__doc__)
    parser.add_argument("--stores", default=",".join(stores.KINDS))
    parser.add_argument("--concurrency", default="1,8", help="threads of the worker (default: 1,8)")
    parser.add_argument("--jobs", type=int, default=30_000)
    options = parser.parse_args(arguments)
    print(
        "microseconds per job: processor time in the jobs' threads (the job's own microsecond included), in the claim"
    )
    print("loop, in the driver; then how long the loop waited for the store while the threads ran jobs.\n")
    print(f"{'store':12} {'threads':>7} {'jobs/s':>9}   " + " ".join(f"{column:>8}" for column in COLUMNS))
    kinds = options.stores.split(",")
    with stores.running(kinds, is_durable=True) as running:
        for kind in kinds:
            for concurrency in map(int, options.concurrency.split(",")):
                with tempfile.TemporaryDirectory() as name:
                    folder = Path(name)
                    with stores.empty(kind, running.get(kind, ""), folder) as url:
                        found = measure(url, folder, jobs=options.jobs, concurrency=concurrency)
                row = " ".join(f"{found[column]:8.1f}" for column in COLUMNS)
                print(f"{kind:12} {concurrency:7} {found['rate']:9,.0f}   {row}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
