"""What a driver says of itself must be so; and no test may be quietly left out."""

from __future__ import annotations

from msgspec.structs import asdict, replace

from protojobs.entropy import fresh_id
from protojobs.port.driver import PORT_VERSION, Store
from protojobs.port.observing import Observes
from protojobs.port.records import Capabilities
from protojobs.port.results import Results
from protojobs.port.transactions import SupportsAsyncTransaction, SupportsTransaction
from protojobs.testing.conformance.children import children_on
from protojobs.testing.conformance.fixtures import Fixtures
from protojobs.testing.conformance.levels import concern
from protojobs.testing.conformance.steps import join, lend, new_job, push, their_ids

__all__ = ["Honesty"]

KIT = __name__.rpartition(".")[0]
RESERVED = ("unique_keys", "limits")


@concern("honesty")
class Honesty(Fixtures):
    """A capability claimed and missing fails, and so does one that is there and not claimed."""

    def test_the_driver_speaks_this_version_of_the_port(self, driver: Store) -> None:
        assert driver.port_version == PORT_VERSION

    def test_capabilities_are_a_frozen_record_that_stays_the_same(self, driver: Store) -> None:
        assert isinstance(driver.capabilities, Capabilities)
        said = asdict(driver.capabilities)
        assert {name: value for name, value in said.items() if not isinstance(value, bool)} == {}
        assert driver.capabilities == driver.capabilities

    def test_transactions_are_claimed_exactly_when_the_verbs_are_there(self, driver: Store) -> None:
        assert driver.capabilities.transactions is isinstance(driver, SupportsTransaction)

    def test_async_transactions_are_claimed_exactly_when_the_verbs_are_there(self, driver: Store) -> None:
        assert driver.capabilities.async_transactions is isinstance(driver, SupportsAsyncTransaction)

    def test_observing_is_claimed_exactly_when_the_verbs_are_there(self, driver: Store) -> None:
        assert driver.capabilities.observing is isinstance(driver, Observes)

    def test_results_are_claimed_exactly_when_they_can_be_asked_for(self, driver: Store) -> None:
        assert driver.capabilities.results is isinstance(driver, Results)

    def test_cross_process_is_claimed_exactly_when_another_process_sees_the_jobs(
        self, driver: Store, store_url: str | None
    ) -> None:
        driver.stats()  # from now on this process has the store open
        for children in children_on(store_url):
            child = children("store")
            said = child.ended()
            assert said, child.fate()
            word, told = said[0]
            is_seen = word == "stored" and bool(driver.get([str(told)]))
            assert driver.capabilities.cross_process is is_seen, child.fate()

    def test_what_is_reserved_for_later_is_not_claimed_yet(self, driver: Store) -> None:
        assert [name for name in RESERVED if getattr(driver.capabilities, name)] == []

    def test_what_is_reserved_has_no_effect_yet(self, driver: Store) -> None:
        alike = replace(new_job(), unique_key="one", limit_keys=("one",), partition="one")
        ids = push(driver, alike, replace(alike, id=fresh_id()))
        assert sorted(their_ids(lend(driver, join(driver)))) == sorted(ids)

    def test_no_test_of_the_kit_is_overridden_without_a_reason(self) -> None:
        tests = [name for name in dir(type(self)) if name.startswith("test_")]
        silent = [owner for name in tests if (owner := silently_replaced(type(self), name))]
        assert silent == [], 'take each out, or say why it is there: @pytest.mark.xfail(reason="...")'


def silently_replaced(suite: type, name: str) -> str | None:
    """Where a test of the kit has another body in the driver's class and no mark that says why; None: nowhere."""
    owners = [owner for owner in suite.__mro__ if name in vars(owner)]
    ours = next((vars(owner)[name] for owner in owners if owner.__module__.startswith(KIT)), None)
    test = vars(owners[0])[name]
    if ours is None or test is ours or any(mark.kwargs.get("reason") for mark in getattr(test, "pytestmark", [])):
        return None
    return f"{owners[0].__qualname__}.{name}"
