"""A ticker that is frozen between reading what is due and firing it, and SQLite, whose time is its tickers' clock.

The long forms are `python3 dev.py faults --scenario schedules` and `--scenario clocks`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from faults.crew import Crew, wait_for
from faults.faketime import SteppedClock
from faults.times import every_second, rested
from protojobs import JobQueue, Scheduler, create_driver

pytestmark = pytest.mark.faults  # run by `python3 dev.py faults --short`

SOON_S = 30.0
STEP_S = 20.0
QUIET_S = 2.0
MISSED = 2  # times that come while the one is frozen


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    made = Crew(tmp_path, lease_s=10.0)
    yield made
    made.dismiss()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mariadb", "valkey"])
def test_a_frozen_ticker_wakes_with_an_old_plan_and_fires_nothing_of_it(
    kind: str, make_store_url: Callable[[str], str], crew: Crew
) -> None:
    url = make_store_url(kind)
    with JobQueue(create_driver(url)) as queue:
        queue.driver.setup()
        sleeper = crew.hire_ticker(url)
        wait_for("the ticker", lambda: crew.awake_tickers, SOON_S)
        registered = every_second(queue)
        crew.catch(sleeper)
        wait_for("it to stop between reading and firing", lambda: sleeper.has_stopped, SOON_S)
        thaw = crew.freeze(sleeper)
        other, fired = Scheduler(queue), 0
        ends_at = time.monotonic() + SOON_S
        while fired <= MISSED:
            assert time.monotonic() < ends_at, f"the other has fired {fired} times"
            fired += other.tick().fired
            time.sleep(0.05)

        def ticked_since() -> list[dict[str, object]]:
            entries = crew.entries("caught", "ticked")
            return entries[1 + [entry["what"] for entry in entries].index("caught") :]

        thaw()
        wait_for("it to go on", ticked_since, SOON_S)
        assert ticked_since()[0]["overtaken"]
        times = rested(queue, crew, registered, within_s=SOON_S)
    planned = crew.entries("caught")[0]["due"]
    assert not {moment.isoformat() for moment in times.told} & set(planned)  # type: ignore[call-overload]
    assert list(times.complaints()) == []
    assert len(times.jobs) > MISSED


def test_a_clock_that_steps_on_sqlite_fires_early_or_late_and_no_time_twice(
    make_store_url: Callable[[str], str], crew: Crew, tmp_path: Path
) -> None:
    url, clock = make_store_url("sqlite"), SteppedClock(tmp_path)
    with JobQueue(create_driver(url)) as queue:
        queue.driver.setup()
        crew.hire_ticker(url, env=clock.env)
        wait_for("the ticker", lambda: crew.awake_tickers, SOON_S)
        registered = every_second(queue)

        def last() -> datetime:
            known = Scheduler(queue).get(registered.id)
            assert known is not None
            return known.last_due_at or registered.first - registered.step

        wait_for("the first times", lambda: last() > registered.first, SOON_S)
        clock.step_to(-STEP_S)
        behind = last()
        time.sleep(QUIET_S)  # the time in which some would have fired
        assert last() <= behind + registered.step  # one may have been on its way
        clock.step_to(STEP_S)
        ahead = registered.first + timedelta(seconds=STEP_S)
        took_s = wait_for("times that are ahead by the right clock", lambda: last() >= ahead, SOON_S)
        assert took_s < STEP_S / 2
        clock.step_to(0)
        reached = last()
        time.sleep(QUIET_S)
        assert last() <= reached + registered.step
        times = rested(queue, crew, registered, within_s=SOON_S)
    assert list(times.complaints()) == []
