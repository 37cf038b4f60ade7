"""The driver contract as tests. Subclass `DriverConformance`, give it a `driver_factory`, and run pytest:

    from protojobs.testing.conformance import DriverConformance

    class TestMyDriver(DriverConformance):
        @pytest.fixture
        def driver_factory(self):
            return functools.partial(MyDriver, "my://localhost/test")

Every test goes through the public port alone. Store time is moved by a second driver with `time_offset`, never by
sleeping. `fixtures.py` says what else you may give; each further module holds the tests of one concern, `levels.py`
says how they are named and ranked. The random walk of `machine.py` goes further with `machine_examples = 1000` in your
class.

Without a line of code: `protojobs conformance my://localhost/test` runs the same on an installed driver.
"""

import pytest

# Shipped test modules are not rewritten by themselves: without this a failure reads a bare AssertionError.
pytest.register_assert_rewrite(
    *(
        f"{__name__}.{module}"
        for module in (
            "administering", "beside", "children", "claiming", "counting", "delays", "enqueueing", "failures", "faults",
            "fencing", "firing", "fixtures", "forking", "grouping", "honesty", "leases", "listing", "machine",
            "machine_schedules", "naming", "observing", "plans", "racing", "ruling", "scheduling", "settling", "steps",
            "transactions", "transferring", "verbs", "waiting", "walking",
        )
    )
)  # fmt: skip

from protojobs.testing.conformance.fixtures import DriverFactory, Handles, Later  # noqa: E402  after the registration
from protojobs.testing.conformance.suite import DriverConformance  # noqa: E402  after the registration

__all__ = ["DriverConformance", "DriverFactory", "Handles", "Later"]
