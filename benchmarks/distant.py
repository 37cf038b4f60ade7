"""`python3 benchmarks/distant.py`: what a worker makes of its slots when the store takes long to answer.

    python3 benchmarks/distant.py                     half a minute
    python3 benchmarks/distant.py --jobs 5000

The store is the one in memory, and each turn of the worker's (results and claim) takes so many milliseconds longer: a
database in another zone or region. The jobs sleep. What a worker could do at most is its slots divided by a job's time.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Sequence

from options import positive
from protojobs import JobQueue, StopToken, job
from protojobs.port.records import ClaimReply, Settlement
from protojobs_memory import MemoryDriver

CASES = ((0.0, 0.005, 8), (0.005, 0.005, 8), (0.02, 0.002, 8), (0.02, 0.005, 8), (0.02, 0.02, 32), (0.05, 0.01, 8))
LIMIT_S = 60.0


class Distant(MemoryDriver):
    """A store whose turns take `away_s` longer."""

    def __init__(self, away_s: float) -> None:
        super().__init__()
        self.away_s = away_s

    def settle_and_claim(
        self, worker: str, settlements: Sequence[Settlement], queues: Sequence[str], *, slots: int, limit: int
    ) -> ClaimReply:
        """There, and back."""
        time.sleep(self.away_s / 2)
        reply = super().settle_and_claim(worker, settlements, queues, slots=slots, limit=limit)
        time.sleep(self.away_s / 2)
        return reply


@job(name="nap", timeout=0, max_retries=1)
def nap(seconds: float) -> None:
    """Take so long, and no processor."""
    time.sleep(seconds)


def rate(away_s: float, takes_s: float, slots: int, count: int) -> float:
    """Jobs a second that one worker completes."""
    store = Distant(away_s)
    queue = JobQueue(store, {"concurrency": slots})
    queue.push_many(nap.bind(takes_s) for _ in range(count))
    stop = StopToken()
    worker = threading.Thread(target=lambda: queue.work(stop=stop), daemon=True)
    started = time.monotonic()
    worker.start()
    while queue.stats().completed < count:
        if time.monotonic() - started > LIMIT_S:
            raise SystemExit(f"not done within {LIMIT_S:g} s")
        time.sleep(0.05)
    took_s = time.monotonic() - started
    stop.stop()
    worker.join(LIMIT_S)
    return count / took_s


def main(words: Sequence[str] | None = None) -> int:
    """The table."""
    asked = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    asked.add_argument("--jobs", type=positive, default=2_000, metavar="N", help="jobs for each line (%(default)s)")
    count = asked.parse_args(words).jobs
    print("store away   a job takes   slots   jobs/s   at most   of that")
    for away_s, takes_s, slots in CASES:
        found, most = rate(away_s, takes_s, slots, count), slots / takes_s
        print(
            f"{1e3 * away_s:7.0f} ms {1e3 * takes_s:10.0f} ms {slots:7} {found:8.0f} {most:9.0f} {found / most:9.2f}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
