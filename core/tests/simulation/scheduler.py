"""Virtual time: one queue of events, in which the dice break ties, and threads that are run step by step."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Generator
from dataclasses import dataclass

from protojobs.testing import ManualClock

__all__ = ["Call", "Party", "Scheduler", "Steps", "Thread"]


@dataclass(frozen=True)
class Call:
    """A thread's wish: this verb at the store. Answered, or StoreUnavailable after `patience_s` at the latest."""

    verb: Callable[[], object]
    patience_s: float


Steps = Generator["Call | float", object, None]  # what a thread does: it yields calls, and seconds to sleep


class Party:
    """Somebody who talks to the store: a process with threads. What hurts it, hurts all of them."""

    def __init__(self) -> None:
        self.is_dead = False
        self.frozen_until = 0.0
        self.cut_off_until = 0.0
        self.answers_lost = 0


class Scheduler:
    """Does what is next, and lets time pass in between. The seed decides all that is not decided otherwise."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.clock = ManualClock()
        self.now = 0.0  # of the clock, which only `pass_time` moves
        self._events: list[tuple[float, float, Callable[[], None], Party | None]] = []

    def at(self, time: float, act: Callable[[], None], owner: Party | None = None) -> None:
        """Do `act` at that time; if it is somebody's own doing, only if they live by then, and once they are awake."""
        # Whole microseconds, as in the store's clock, which so never drifts from the monotonic one.
        heapq.heappush(self._events, (round(max(time, self.now), 6), self.dice.random(), act, owner))

    def spawn(self, owner: Party, steps: Steps) -> Thread:
        """A new thread of this party; it begins now."""
        thread = Thread(self, owner, steps)
        self.at(self.now, thread.go, owner)
        return thread

    def pass_time(self, limit: float) -> None:
        """Until nothing more is to happen, or that time."""
        while self._events and self.now < limit:
            time, _, act, owner = heapq.heappop(self._events)
            if time > self.now:
                self.clock.advance(time - self.now)
                self.now = self.clock.monotonic()
            if owner is None:
                act()
            elif not owner.is_dead:
                if owner.frozen_until <= self.now:
                    act()
                else:
                    self.at(owner.frozen_until + self.dice.uniform(0, 0.01), act, owner)

    def end(self) -> None:
        """Nothing more happens."""
        self._events.clear()

    def carry(self, sender: Party, call: Call, tell: Callable[[object], None]) -> None:
        """Take a call to the store; `tell` the answer, or an exception, exactly once."""
        raise NotImplementedError


class Thread:
    """One thread of a party."""

    def __init__(self, scheduler: Scheduler, owner: Party, steps: Steps) -> None:
        self._scheduler, self._owner, self._steps = scheduler, owner, steps
        self._turn = 0
        self._is_asleep = False

    def go(self, answer: object = None) -> None:
        """On to the next wish."""
        self._turn += 1
        self._is_asleep = False
        try:
            wish = self._steps.throw(answer) if isinstance(answer, Exception) else self._steps.send(answer)
        except StopIteration:
            return
        if isinstance(wish, Call):
            self._scheduler.carry(self._owner, wish, self.go)
        else:
            self._is_asleep = True
            self._go_at(self._scheduler.now + wish)

    def wake(self) -> None:
        """End its sleep early, if it sleeps."""
        if self._is_asleep:
            self._is_asleep = False
            self._go_at(self._scheduler.now)

    def _go_at(self, time: float) -> None:
        turn = self._turn
        self._scheduler.at(time, lambda: self.go() if turn == self._turn else None, self._owner)
