"""A process for the fault tests to kill, freeze and start: `python -m protojobs.testing.conformance.actor ROLE`.

The URL of the store is in the environment, since a password is nobody's business in a list of processes. Each line on
stdout is a JSON list and says what the store has *answered*: what stands there is acknowledged. The loops go on until
the process is killed, or its stdin ends because its parent did.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator

from protojobs import create_driver
from protojobs.errors import LeaseLost, StoreUnavailable
from protojobs.port.driver import Store
from protojobs.port.lifecycle import Verb
from protojobs.port.records import ClaimedJob, NewJob
from protojobs.testing.conformance.plans import firing_of
from protojobs.testing.conformance.steps import fresh_ids, join, lend, new_job, only, settlement

__all__ = ["BATCH", "BATCHES_MAX", "QUEUE", "URL_VARIABLE"]

URL_VARIABLE = "PROTOJOBS_CONFORMANCE_URL"
QUEUE = "q"
BATCH = 5  # jobs in each enqueue of `push`, told apart by the job_name `batch <number>`
BATCHES_MAX = 100  # of one process: who looks at the jobs afterwards wants to see an end of them
BITE = 7  # jobs in each claim of `work`
VERBS = (Verb.COMPLETE, Verb.COMPLETE, Verb.RETRY, Verb.SNOOZE, Verb.RELEASE, Verb.COMPLETE)


def say(*words: object) -> None:
    """One acknowledged thing, at once."""
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def push_on(driver: Store) -> None:
    """Enqueue batch after batch; say the ids of each that was answered. After the last wait to be killed."""
    leave_with_the_parent()
    for _ in range(BATCHES_MAX):
        ids = fresh_ids(BATCH)
        driver.enqueue([new_job(QUEUE, id=job_id, job_name=f"batch {ids[0]}") for job_id in ids])
        say("stored", ids)
    threading.Event().wait()


def work_for_ever(driver: Store) -> None:
    """Claim and settle, mostly by completing; say each claim, and each settlement with its answer.

    Once its lease is lost it goes on as a new worker.
    """
    leave_with_the_parent()
    worker = join(driver)
    say("joined", worker)
    claims: tuple[ClaimedJob, ...] = ()
    while True:
        said = [settlement(claim, VERBS[place % len(VERBS)]) for place, claim in enumerate(claims)]
        reply = driver.settle_and_claim(worker, said, [QUEUE], slots=BITE, limit=BITE)
        for before, answer in zip(said, reply.settled, strict=True):
            say("settled", before.id, before.claim_seq, before.verb.value, answer.status.value)
        for claim in reply.claimed:
            say("claimed", claim.id, claim.claim_seq)
        claims = reply.claimed
        if reply.lease_lost:
            worker = join(driver)
            say("joined", worker)


def hold_one(driver: Store) -> None:
    """Claim one job; at the next line on stdin complete it, and beat. Say what came of both."""
    worker = join(driver)
    claim = only(lend(driver, worker, QUEUE, limit=1))
    say("claimed", claim.id, claim.claim_seq)
    sys.stdin.readline()
    answer = only(driver.settle([settlement(claim, Verb.COMPLETE)]))
    say("settled", claim.id, claim.claim_seq, "complete", answer.status.value)
    try:
        driver.heartbeat(worker, {})
        say("beat", "accepted")
    except LeaseLost:
        say("beat", "lease lost")


def tick_on(driver: Store) -> None:
    """Fire what is due, step by step; say each answer, and when nothing is due any more. Then wait to be killed."""
    leave_with_the_parent()
    while schedules := driver.due_schedules(BITE).schedules:
        for said in map(firing_of, schedules):
            answer = only(driver.fire([said]))
            say(answer.status.value, said.due.isoformat())
    say("dry")
    threading.Event().wait()


def tick_late(driver: Store) -> None:
    """Look what is due; at the next line on stdin fire it, and say what came of it."""
    schedule = only(driver.due_schedules(BITE).schedules)
    say("looked")
    sys.stdin.readline()
    answer = only(driver.fire([firing_of(schedule)]))
    say(answer.status.value)


def set_up(driver: Store) -> None:
    """At the next line on stdin create the storage."""
    say("ready")
    sys.stdin.readline()
    driver.setup()
    say("done")


def store_one(driver: Store) -> None:
    """Enqueue one job; a store that another process has open may refuse that."""
    try:
        say("stored", only(driver.enqueue([new_job(QUEUE)])).id)
    except StoreUnavailable as error:
        say("refused", str(error))


class Halting(list[NewJob]):
    """Jobs, amid whose every reading the process stands still until it is told to go on: as if it were frozen."""

    def __iter__(self) -> Iterator[NewJob]:
        for place, job in enumerate(super().__iter__()):
            if place == 1:
                say("amid")
                sys.stdin.readline()
            yield job


def store_haltingly(driver: Store) -> None:
    """Enqueue two jobs, and stand still amid that; how often and where is the driver's affair."""
    driver.enqueue(Halting([new_job(QUEUE), new_job(QUEUE)]))
    say("stored")


def leave_with_the_parent() -> None:
    """End this process when its stdin ends."""

    def watch() -> None:
        while sys.stdin.readline():
            pass
        os._exit(3)

    threading.Thread(target=watch, daemon=True).start()


ROLES: dict[str, Callable[[Store], None]] = {
    "push": push_on,
    "work": work_for_ever,
    "hold": hold_one,
    "tick": tick_on,
    "tick late": tick_late,
    "setup": set_up,
    "store": store_one,
    "store haltingly": store_haltingly,
}

if __name__ == "__main__":
    ROLES[sys.argv[1]](create_driver(os.environ[URL_VARIABLE]))
