"""A worker as a program: `python worker_process.py '{"url": ..., "journal": ..., "lease": 3, ...}'`."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from crew import write_entry

from protojobs import JobContext, JobQueue, create_driver, events, job

options = json.loads(sys.argv[1]) if __name__ == "__main__" else {"journal": os.devnull, "gate": os.devnull}
journal, gate = options["journal"], Path(options["gate"])


@job(name="count", queue="work", max_retries=0)
def count(number: int, ctx: JobContext) -> None:
    """Say that it ran, and how often it was lent."""
    write_entry(journal, "ran", number=number, claim_seq=ctx.claim_seq)


@job(name="wait_at_gate", queue="work", timeout=0)
def wait_at_gate(fails: bool, ctx: JobContext) -> None:
    """Say so, wait until the gate is open, and succeed or fail."""
    write_entry(journal, "started", id=ctx.id, claim_seq=ctx.claim_seq)
    while not gate.exists():
        time.sleep(0.02)
    write_entry(journal, "ending", id=ctx.id, claim_seq=ctx.claim_seq)
    if fails:
        raise RuntimeError("too late")


@job(name="wait_alone", queue="work", timeout=0, exclusive=True)
def wait_alone(ctx: JobContext) -> None:
    """The same for a job that must not overlap with another run of itself. Says when it was cut."""
    try:  # around the first line, too: the process may be frozen, and the run cut, right behind it
        write_entry(journal, "started", id=ctx.id, claim_seq=ctx.claim_seq)
        while not gate.exists():
            time.sleep(0.02)
    finally:
        write_entry(journal, "ending" if gate.exists() else "cut", id=ctx.id, claim_seq=ctx.claim_seq)


def main() -> None:
    queue = JobQueue(create_driver(options["url"]), {"lease": options["lease"]})
    for name in ("job.late", "job.lost", "job.processed", "job.released", "job.retrying"):
        events.on(name, lambda event: write_entry(journal, event.event_name, id=event.job_id))
    write_entry(journal, "ready")
    queue.work("work", 1_000_000 if options["until_empty"] else None, concurrency=options["concurrency"])


if __name__ == "__main__":
    main()
