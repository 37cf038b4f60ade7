"""A primary dies for good, and its replica takes over: the short form of `dev.py faults --scenario failover`."""

from __future__ import annotations

import contextlib
import random
import time
from pathlib import Path

import psycopg
import pytest

import servers
from faults.checker import complaints
from faults.failover_postgresql import pair
from faults.failover_valkey import cluster
from faults.history import End, Fault, Final, History, Pushed, Run
from faults.scenarios.failover import on_postgresql, on_valkey
from faults.stage import Stage
from protojobs import create_driver
from protojobs.errors import StoreUnavailable
from protojobs.port.driver import Store
from protojobs.port.lifecycle import Verb
from protojobs.testing.conformance.steps import join, lend, new_job, push, settlement

pytestmark = pytest.mark.faults  # minutes of real faults: run by `python3 dev.py faults --short`

PATIENCE_S = 20.0
PARTED_S = 0.5
PAGE = 1_000


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage("", "", tmp_path, 1, 0.0, random.Random(1), lambda _: None)


@pytest.mark.slow
def test_workers_and_producers_follow_a_synchronous_standby_and_nothing_is_lost(stage: Stage) -> None:
    report = on_postgresql(stage, 1, round_s=6)
    assert report.complaints == []
    assert report.figures["failovers"] == 1


@pytest.mark.slow
def test_workers_and_producers_follow_a_cluster_and_what_a_replica_confirmed_is_not_lost(stage: Stage) -> None:
    report = on_valkey(stage, 1, "&wait_replicas=1&wait_timeout=0.5", round_s=6)
    assert report.complaints == []
    assert report.figures["failovers"] == 1


@pytest.mark.slow
def test_a_standby_that_nobody_waits_for_loses_what_was_acknowledged_last() -> None:
    with pair() as both:
        servers.create_database(both.primary.url, "faults")
        driver = create_driver(both.url("faults"))
        driver.setup()
        (kept,) = push(driver)
        standby = both.standby
        assert standby is not None
        servers.until(lambda: shows(standby, kept), "the standby is behind", limit=PATIENCE_S)
        both.part()
        lost = stored_meanwhile(driver)
        both.kill_primary()
        both.promote()
        servers.until(lambda: answers(driver), "the new primary was not found", limit=PATIENCE_S)
        assert lost
        assert found(driver, [kept, *lost]) == {kept}
        driver.close()


@pytest.mark.slow
def test_a_cluster_forgets_what_no_replica_was_waited_for() -> None:
    with cluster() as nodes:
        careless, careful = create_driver(nodes.url), create_driver(f"{nodes.url}&wait_replicas=1&wait_timeout=0.1")
        careless.setup()
        worker, kept = join(careful), push(careful, new_job(), new_job())
        (claim,) = lend(careful, worker, limit=1)
        go_on = nodes.part()
        lost = stored_meanwhile(careless)
        refused = new_job()
        for _ in range(2):  # the second time nothing is left to write: that is not taken for kept either
            with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
                careful.enqueue([refused])
        with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
            careful.settle([settlement(claim, Verb.COMPLETE)])
        with nodes.down():
            go_on()
            nodes.wait_for_takeover()
            servers.until(lambda: answers(careless) and answers(careful), "no new primary", limit=PATIENCE_S)
            assert lost
            assert found(careless, [*kept, *lost, refused.id]) == set(kept)
        assert [answer.duplicate_of for answer in careful.enqueue([refused])] == [None]
        assert [answer.status.value for answer in careful.settle([settlement(claim, Verb.COMPLETE)])] == ["applied"]
        careless.close()
        careful.close()


def of_one_claim(*faults: Fault) -> History:
    """A job that was lent twice under one number, at 10 and at 20 s."""
    runs = [Run("job", 1, 1, worker, began, began + 1, End.OK) for worker, began in (("w1", 10.0), ("w2", 20.0))]
    pushed, finals = {"job": Pushed(5.0, is_acknowledged=True)}, {"job": Final("completed", 1)}
    return History(pushed=pushed, runs=runs, faults=[*faults], finals=finals)


def said_of(history: History) -> list[str]:
    return complaints(history, lease_s=3.0, settles_within_s=1.0, max_retries=3)


def test_the_checker_takes_a_second_run_under_one_claim_from_a_store_that_went_back_to_before_it_only() -> None:
    assert said_of(of_one_claim(Fault("rolled back", 9.5, 15.0))) == []
    for fault in (
        (),
        (Fault("outage", 9.5, 15.0),),
        (Fault("rolled back", 13.0, 15.0),),
        (Fault("rolled back", 1.0, 9.0),),
    ):
        assert len(said_of(of_one_claim(*fault))) == 1


def test_the_checker_forgives_a_store_that_went_back_no_lost_job() -> None:
    history = of_one_claim(Fault("rolled back", 9.5, 15.0))
    history.finals.clear()
    assert said_of(history) == ["job was acknowledged and is gone"]


def stored_meanwhile(driver: Store) -> list[str]:
    """The ids of the jobs that the store acknowledged within a moment."""
    ids: list[str] = []
    ends_at = time.monotonic() + PARTED_S
    while time.monotonic() < ends_at:
        ids += push(driver)
    return ids


def found(driver: Store, ids: list[str]) -> set[str]:
    return {job.id for at in range(0, len(ids), PAGE) for job in driver.get(ids[at : at + PAGE])}


def answers(driver: Store) -> bool:
    """Whether the new primary was found; until then each call says that the store is not there."""
    with contextlib.suppress(StoreUnavailable):
        driver.now()
        return True
    return False


def shows(standby: servers.Server, job_id: str) -> bool:
    """Whether the standby has the job."""
    with psycopg.connect(standby.url.rpartition("/")[0] + "/faults", connect_timeout=5) as connection:
        return connection.execute("select 1 from jobs where id = %s", [job_id]).fetchone() is not None
