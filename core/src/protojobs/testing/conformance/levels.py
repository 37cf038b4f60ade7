"""What each test of the kit is called for good, and to which level it belongs.

A test's id is its concern and its sentence, `fencing.a_missing_job_is_stale_and_has_no_state[retry]`: neither the file
nor the class that it stands in is part of it, so reports of different releases can be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

from msgspec import Struct

__all__ = ["NOT_CLAIMED", "NOT_RUN", "Contract", "Level", "concern", "contract_of"]

# How a test that does not apply begins the reason of its skip; a report tells the two apart.
NOT_CLAIMED = "not claimed: "  # the driver does not say that it can do this, so nobody will ask it to
NOT_RUN = "not run: "  # it says so, and here it cannot be tried

Suite = TypeVar("Suite", bound=type)


class Level(StrEnum):
    """From what every store must do upwards. A level is reached when it and all claimed ones below it pass."""

    QUEUE = "queue"  # the whole port, in one process
    TRANSACTIONS = "transactions"  # jobs that commit or vanish with the caller's own rows
    FAULTS = "faults"  # real processes killed and frozen, connections cut


class Contract(Struct, frozen=True):
    """One promise, as a test."""

    id: str
    concern: str
    level: Level

    @property
    def sentence(self) -> str:
        """The promise in words."""
        return self.id.partition(".")[2].replace("_", " ")


_contracts: dict[tuple[type, str], Contract] = {}


def concern(name: str, level: Level = Level.QUEUE) -> Callable[[Suite], Suite]:
    """Give the tests of the class their ids."""

    def enter(suite: Suite) -> Suite:
        for test in vars(suite):
            if test.startswith("test_"):
                _contracts[suite, test] = Contract(f"{name}.{test.removeprefix('test_')}", name, level)
        return suite

    return enter


def contract_of(suite: type, test: str) -> Contract | None:
    """The contract behind a test of a driver's class, overridden or not; None for a test of the author's own."""
    return next((found for owner in suite.__mro__ if (found := _contracts.get((owner, test)))), None)
