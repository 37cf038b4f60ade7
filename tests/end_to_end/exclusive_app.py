"""Two workers of the command line share a store; the one that is called `one` can be cut off from it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from protojobs import JobQueue, create_driver, events, job
from protojobs.errors import StoreUnavailable

FOLDER, ME = Path(os.environ["EXCLUSIVE_FOLDER"]), os.environ["EXCLUSIVE_ME"]
CALLS = ("heartbeat", "settle_and_claim", "settle", "held", "reclaim", "wait", "register", "leave", "prune", "workers")

driver = create_driver(os.environ["EXCLUSIVE_URL"])


def _cut_off(call: Callable[..., object]) -> Callable[..., object]:
    def unless_cut(*args: object, **named: object) -> object:
        if (FOLDER / "cut").exists():
            raise StoreUnavailable("no route to host")
        return call(*args, **named)

    return unless_cut


if ME == "one":
    for name in CALLS:
        setattr(driver, name, _cut_off(getattr(driver, name)))

queue = JobQueue(driver, {"lease": 10.0, "observe": False})


@events.on("worker.degraded")
def page_somebody(_event: object) -> None:
    """The network is away, so this hangs too."""
    time.sleep(60)


@job(name="ledger.close", exclusive=True, timeout=0)
def close_the_books() -> None:
    """Write down each tenth of a second in which it is at work, and let nobody end it."""
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        try:
            with open(FOLDER / ME, "a") as log:
                log.write(f"{time.monotonic()}\n")
            time.sleep(0.1)
        except BaseException:
            pass
