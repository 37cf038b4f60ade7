"""What a worker says to the store and is answered, in the claim loop's own thread or beside it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from protojobs.clock import within
from protojobs.errors import ContractBroken
from protojobs.port.driver import Driver
from protojobs.port.records import ClaimedJob, ClaimReply, Settled
from protojobs.worker.outcome import Outcome
from protojobs.worker.plan import Plan
from protojobs.worker.reports.announcements import tries

__all__ = ["RoundTripThread", "RoundTrip", "settled_singly"]

_log = logging.getLogger("protojobs.worker")


class RoundTrip:
    """One turn: a plan's results and its claim, as a certain worker, and the answer, which may be an error."""

    def __init__(self, plan: Plan, worker: str, *, asks_held: bool = False) -> None:
        self.plan = plan
        self.worker = worker
        self.held: Sequence[ClaimedJob] | None = None
        self.reply = ClaimReply()
        self.error: BaseException | None = None
        self.asks_held = asks_held

    def take_place(self, driver: Driver, queues: Sequence[str]) -> None:
        """Ask, and note the answer. Raises nothing."""
        plan, sent = self.plan, [outcome.settlement for outcome in self.plan.settle]
        try:
            with within(plan.call_s):
                if self.asks_held:
                    self.held = self._held(driver)
                self.reply = driver.settle_and_claim(self.worker, sent, queues, slots=plan.slots, limit=plan.limit)
        except BaseException as error:  # noqa: BLE001  (raised again by the claim loop, whichever thread this is)
            self.error = error

    def _held(self, driver: Driver) -> Sequence[ClaimedJob]:
        """A row that cannot be read is most likely why the claim before had no answer: it must not be for ever."""
        try:
            return driver.held(self.worker)
        except ContractBroken as error:
            _log.error("what this worker holds cannot be read, and waits for the end of its lease: %s", error)
            return ()


class RoundTripThread:
    """A thread that carries one exchange at a time, so that the claim loop can go on while the store answers.

    At most one is on its way: the store sees what this worker says in the order in which it was decided.
    """

    def __init__(self, driver: Driver, queues: Sequence[str], deliver: Callable[[RoundTrip], None]) -> None:
        self._driver = driver
        self._queues = queues
        self._deliver = deliver
        self._outgoing: SimpleQueue[RoundTrip | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def send(self, exchange: RoundTrip) -> None:
        """Carry it; it is delivered with its answer."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="protojobs-courier", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no thread to be had: the loop carries it itself, and waits
                self._carry(exchange)
                return
            self._thread = thread
        self._outgoing.put(exchange)

    def close(self) -> None:
        """End, after what is on its way, for which nobody waits."""
        self._outgoing.put(None)

    def _run(self) -> None:
        while (exchange := self._outgoing.get()) is not None:
            self._carry(exchange)
            del exchange  # else an idle worker keeps up to a thousand outcomes, and what their exceptions hold

    def _carry(self, exchange: RoundTrip) -> None:
        exchange.take_place(self._driver, self._queues)
        self._deliver(exchange)


def settled_singly(driver: Driver, outcome: Outcome) -> tuple[Outcome, Settled] | None:
    """Settle one result by itself: it as the store took it, and the answer. None: it is taken in no form.

    Raises DriverError where the store does not answer.
    """
    for attempt in tries(outcome):
        said = attempt.settlement
        try:
            (answer,) = driver.settle([said])
        except ContractBroken as error:
            _log.error("job %s: its %s was refused: %s", said.id, said.verb, error)
        else:
            return attempt, answer
    return None
