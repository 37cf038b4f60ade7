"""The whole contract in one class, in the order in which a newcomer would read it."""

from __future__ import annotations

from protojobs.testing.conformance.administering import Administering
from protojobs.testing.conformance.claiming import Claiming
from protojobs.testing.conformance.counting import Counting
from protojobs.testing.conformance.delays import Delays
from protojobs.testing.conformance.enqueueing import Enqueueing
from protojobs.testing.conformance.failures import Failures
from protojobs.testing.conformance.faults import Faults
from protojobs.testing.conformance.fencing import Fencing
from protojobs.testing.conformance.firing import FiringOnce
from protojobs.testing.conformance.grouping import Grouping
from protojobs.testing.conformance.honesty import Honesty
from protojobs.testing.conformance.leases import Leases
from protojobs.testing.conformance.listing import Listing
from protojobs.testing.conformance.machine import Comparing
from protojobs.testing.conformance.naming import Naming
from protojobs.testing.conformance.observing import Observing
from protojobs.testing.conformance.racing import Racing
from protojobs.testing.conformance.results import KeepingResults
from protojobs.testing.conformance.ruling import Ruling
from protojobs.testing.conformance.scheduling import Scheduling
from protojobs.testing.conformance.settling import Settling
from protojobs.testing.conformance.transactions import Transactions
from protojobs.testing.conformance.transferring import Transferring
from protojobs.testing.conformance.waiting import Waiting
from protojobs.testing.conformance.walking import Walking

__all__ = ["DriverConformance"]


class DriverConformance(
    Honesty,
    Ruling,
    Enqueueing,
    Claiming,
    Delays,
    Settling,
    Fencing,
    Leases,
    Walking,
    Racing,
    Failures,
    Administering,
    Counting,
    Listing,
    Naming,
    Transferring,
    Scheduling,
    FiringOnce,
    Observing,
    Grouping,
    KeepingResults,
    Waiting,
    Comparing,
    Transactions,
    Faults,
):
    """Subclass this, and give `driver_factory`; the other fixtures are optional. New tests arrive by themselves."""
