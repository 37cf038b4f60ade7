"""Two stores side by side, told the same and asked the same: what the random walk stands on."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import TypeVar

from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant

from protojobs.errors import LeaseLost
from protojobs.port.driver import Store
from protojobs.port.records import NewJob
from protojobs.testing.conformance.fixtures import DriverFactory

__all__ = ["ALL", "QUEUES", "Beside", "pick"]

QUEUES = ("a", "A")
ALL = 1_000
LOOK_EVERY = 4  # steps

Thing = TypeVar("Thing")


class Beside(RuleBasedStateMachine):
    """The store under test and the model, at the same time of the same clock; both are empty in the beginning."""

    real: Store
    model: Store

    def __init__(self, real_factory: DriverFactory, model_factory: DriverFactory, reset: Callable[[], None]) -> None:
        super().__init__()
        self._factories = (real_factory, model_factory)
        self._reset = reset
        self._offset = 0.0
        self._made = self._steps = 0
        self._jobs: list[NewJob] = []

    @initialize()
    def begin(self) -> None:
        """Both stores are empty."""
        self._reset()
        self.real, self.model = (factory() for factory in self._factories)
        self.model.teardown()
        self.begin_work()

    def begin_work(self) -> None:
        """What a short walk is to meet."""

    @invariant()
    def both_look_the_same(self) -> None:
        """Every few steps, and at the end: what has come apart stays apart, and looking costs more than a step."""
        self._steps += 1
        if self._steps % LOOK_EVERY == 0:
            self._look()

    def _look(self) -> None:
        """Compare all that the two show."""

    def teardown(self) -> None:
        """Look a last time, and give the drivers back."""
        if hasattr(self, "real"):
            try:
                self._look()
            finally:
                self.real.close()
                self.model.close()

    def _move_on(self, seconds: float) -> None:
        """Let time pass, for fresh drivers on the same stores."""
        self._offset += seconds
        self.real.close()
        self.model.close()
        self.real, self.model = (factory(time_offset=self._offset) for factory in self._factories)

    def _same(self, ask: Callable[[Store], object]) -> None:
        """Ask both, and expect one answer; LeaseLost is an answer too."""
        answers: list[object] = []
        for store in (self.real, self.model):
            try:
                answers.append(ask(store))
            except LeaseLost:
                answers.append(LeaseLost)
        real, model = answers
        assert real == model

    def _next_id(self) -> str:
        """Ids in ascending order, of the form that core makes."""
        self._made += 1
        return str(uuid.UUID(int=0x0199_0000_0000_7000_8000_0000_0000_0000 + self._made))


def pick(things: list[Thing], place: int) -> Thing:
    """One of the things, counted from the newest."""
    return things[-1 - place % len(things)]
