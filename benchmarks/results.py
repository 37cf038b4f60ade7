"""How long a result takes beside the start of its job, on each store, by one idle worker in a process of its own.

python3 dev.py run python benchmarks/results.py [STORE ...]     p50 and p99 in ms; the ratio is of the medians

Each job returns the moment at which it began, so both times are those of the same jobs: from before the call of `push`
to the job's first line, and to the return of `wait_for`. `plain` is the start of jobs that keep no result.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import stores
from bench_jobs import began, began_keeping
from protojobs import JobQueue, create_driver

JOBS, PAUSE_S, WAIT_S = 300, 0.02, 30.0
HERE = Path(__file__).resolve().parent


def measured(kind: str, server: str, folder: Path) -> tuple[list[float], list[float], list[float]]:
    """Milliseconds to the start of plain jobs, to the start of jobs that keep their result, and to those results."""
    with stores.empty(kind, server, folder) as url:
        queue = JobQueue(create_driver(url))
        queue.driver.setup()
        command = [sys.executable, "-m", "protojobs", "worker", "default", "--app", "bench_jobs", "--url", url]
        worker = subprocess.Popen(command, cwd=HERE, env={**os.environ, "PROTOJOBS_BENCH_FOLDER": str(folder)})
        try:
            queue.wait_for(queue.push(began_keeping), WAIT_S)
            chance, plain, started, told = random.Random(42), list[float](), list[float](), list[float]()
            for _ in range(JOBS):
                time.sleep(PAUSE_S + chance.random() * PAUSE_S)  # in step with nothing
                sent = time.time_ns()
                at = queue.wait_for(queue.push(began_keeping), WAIT_S)
                told.append((time.time_ns() - sent) / 1e6)
                started.append((at - sent) / 1e6)
            for _ in range(JOBS):
                time.sleep(PAUSE_S + chance.random() * PAUSE_S)
                queue.wait_for(queue.push(began, {"sent_ns": time.time_ns()}), WAIT_S)
            plain = [wait / 1e6 for wait in _waits(folder)]
        finally:
            worker.terminate()
            worker.wait(WAIT_S)
            queue.close()
    return plain, started, told


def _waits(folder: Path) -> list[int]:
    import counted

    return counted.waits(folder)


def main(*kinds: str) -> None:
    wanted = kinds or ("sqlite", "postgresql", "mariadb", "valkey")
    print(f"{'':12}{'plain start':>16}{'start':>16}{'result':>16}{'ratio':>8}")
    with stores.running(wanted, is_durable=True) as servers:
        for kind in wanted:
            with tempfile.TemporaryDirectory() as folder:
                columns = measured(kind, servers.get(kind, ""), Path(folder))
            cuts = [statistics.quantiles(column, n=100, method="inclusive") for column in columns]
            shown = "".join(f"{cut[49]:>9.2f}{cut[98]:>7.1f}" for cut in cuts)
            print(f"{kind:12}{shown}{cuts[2][49] / cuts[0][49]:>8.2f}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
