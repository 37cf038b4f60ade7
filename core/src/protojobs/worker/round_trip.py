"""One round trip to the store: a plan's results and its claim, by the claim loop itself or by a thread beside it.

The thread is for a loop that has jobs to go on with while the store answers. docs/decisions/0025.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from msgspec.structs import replace

from protojobs.clock import within
from protojobs.errors import ContractBroken
from protojobs.jobs.fingerprints import fingerprint
from protojobs.port.driver import Driver
from protojobs.port.lifecycle import Verb
from protojobs.port.records import ClaimedJob, ClaimReply, Settled
from protojobs.worker.outcome import Outcome, settlement
from protojobs.worker.plan import Plan

__all__ = ["RoundTrip", "RoundTripThreads", "settled_singly"]

_log = logging.getLogger("protojobs.worker")


class RoundTrip:
    """A plan's results and its claim, as a certain worker; and the reply, or an error."""

    def __init__(self, plan: Plan, worker: str, queues: Sequence[str], *, asks_held: bool = False) -> None:
        self.plan = plan
        self.worker = worker
        self.queues = queues
        self.held: Sequence[ClaimedJob] | None = None
        self.reply = ClaimReply()
        self.error: BaseException | None = None
        self.asks_held = asks_held

    def make(self, driver: Driver) -> None:
        """Call the store, and note its reply. Raises nothing."""
        plan, sent = self.plan, [outcome.settlement for outcome in self.plan.settle]
        try:
            with within(plan.call_s):
                if self.asks_held:
                    self.held = self._held(driver)
                self.reply = driver.settle_and_claim(self.worker, sent, self.queues, slots=plan.slots, limit=plan.limit)
        except BaseException as error:  # noqa: BLE001  (raised again by the claim loop, whichever thread this is)
            self.error = error

    def _held(self, driver: Driver) -> Sequence[ClaimedJob]:
        """A row that cannot be read is most likely why the claim before had no answer: it must not be for ever."""
        try:
            return driver.held(self.worker)
        except ContractBroken as error:
            _log.error("what this worker holds cannot be read, and waits for the end of its lease: %s", error)
            return ()


class RoundTripThreads:
    """Make trips, each in a thread of its own while there are no more than `threads_max`, so that the claim loop can go
    on meanwhile.
    """

    def __init__(self, driver: Driver, deliver: Callable[[RoundTrip], None], threads_max: int = 1) -> None:
        self._driver = driver
        self._deliver = deliver
        self._threads_max = threads_max
        self._outgoing: SimpleQueue[RoundTrip | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def send(self, trip: RoundTrip, beside: int = 0) -> None:
        """Make it; it is delivered with its reply. `beside`: how many others are on their way."""
        if len(self._threads) <= beside and len(self._threads) < self._threads_max:
            thread = threading.Thread(target=self._run, name="protojobs-store", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no thread to be had: the loop makes it itself, and waits
                self._make(trip)
                return
            self._threads.append(thread)
        self._outgoing.put(trip)

    def close(self) -> None:
        """End, after what is on its way, for which nobody waits."""
        for _ in self._threads:
            self._outgoing.put(None)

    def _run(self) -> None:
        while (trip := self._outgoing.get()) is not None:
            self._make(trip)
            del trip  # else an idle worker keeps up to a thousand outcomes, and what their exceptions hold

    def _make(self, trip: RoundTrip) -> None:
        trip.make(self._driver)
        self._deliver(trip)


def settled_singly(driver: Driver, outcome: Outcome) -> tuple[Outcome, Settled] | None:
    """Settle one result by itself: it as the store took it, and the answer. None: it is taken in no form.

    Raises DriverError where the store does not answer.
    """
    for attempt in _attempts(outcome):
        sent = attempt.settlement
        try:
            (answer,) = driver.settle([sent])
        except ContractBroken as error:
            _log.error("job %s: its %s was refused: %s", sent.id, sent.verb, error)
        else:
            return attempt, answer
    return None


def _attempts(outcome: Outcome) -> tuple[Outcome, Outcome]:
    """What a run led to, and what is sent where the store cannot take that.

    Where that is refused too, the next comparison of what this worker holds gives the job back.
    """
    error = ContractBroken("The store refused the result of this run.")
    mark = fingerprint(outcome.claimed.job_name, error)
    refused = settlement(outcome.claimed, Verb.FAIL, error=error.message, fingerprint=mark)
    return outcome, replace(outcome, settlement=refused)
