"""The way to the store and back, with all that a network can do to a call."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from protojobs.errors import LeaseLost, StoreUnavailable

from .scheduler import Call, Party, Scheduler

__all__ = ["LATE_S", "Network"]

LATE_S = 9.0  # a call that was given up may be executed so long after it was sent
HICCUP_S = 0.05
SLOW_S = 1.0


class Network(Scheduler):
    """Carries calls as well as the weather allows.

    A call may never arrive, or be executed and its answer lost, or be executed long after it was given up: from the
    sender's side these look the same.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.outage_until = self.slow_until = 0.0  # for all; a Party can be cut off alone
        self.under_way = 0  # calls that will still be executed

    def carry(self, sender: Party, call: Call, tell: Callable[[object], None]) -> None:
        """See Scheduler.carry."""
        given_up_at = self.now + call.patience_s
        there_s, back_s = self._way(sender)
        is_late = self.now + there_s >= given_up_at

        def fail(at: float = inf) -> None:
            self.at(min(at, given_up_at), lambda: tell(StoreUnavailable("no answer")), sender)

        def arrive() -> None:
            self.under_way -= 1
            answer = self._answer(call)
            if is_late:
                return
            if sender.answers_lost or self.now < sender.cut_off_until or self.now + back_s >= given_up_at:
                sender.answers_lost = max(0, sender.answers_lost - 1)
                fail()
            else:
                self.at(self.now + back_s, lambda: tell(answer), sender)

        if there_s == inf:
            fail(self.dice.choice((self.now, inf)))  # refused, or swallowed
            return
        self.under_way += 1
        if there_s == 0:
            arrive()
            return
        self.at(self.now + there_s, arrive)
        if is_late:
            fail()

    def _answer(self, call: Call) -> object:
        if self.now < self.outage_until:
            return StoreUnavailable("it died with the store")
        try:
            return call.verb()
        except LeaseLost as lost:
            return lost

    def _way(self, sender: Party) -> tuple[float, float]:
        """Seconds to the store and back; infinity for a call that never arrives."""
        dice = self.dice
        if (away_s := max(self.outage_until, sender.cut_off_until) - self.now) > 0:
            # It may wait in the network, or at the door of a store that hangs, and be the first to be let in.
            return (away_s + dice.choice((0.0, dice.uniform(0, SLOW_S))) if dice.random() < 0.3 else inf), 0.0
        if self.now < self.slow_until:
            return dice.uniform(0, LATE_S if dice.random() < 0.2 else SLOW_S), dice.uniform(0, SLOW_S)
        return (0.0, 0.0) if dice.random() < 0.8 else (dice.uniform(0, HICCUP_S), dice.uniform(0, HICCUP_S))
