"""A prune of many queues: it goes on where the one before ended, comes to every queue, and looks at what may go."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from functools import partial

import pytest
import redis

import servers
from protojobs import JobQueue
from protojobs.port.lifecycle import Verb
from protojobs.port.records import Pruned
from protojobs.testing.conformance.steps import join, lend, new_job, push, settlement
from protojobs_redis import RedisDriver, administration

CALLS_MAX = 100
At = Callable[[float], RedisDriver]


@pytest.fixture
def at(request: pytest.FixtureRequest, valkey_url: str) -> At:
    """`at(3600)`: a driver whose store time is so many seconds ahead."""
    make = partial(RedisDriver, valkey_url, namespace=request.node.name[:100])
    driver = make()
    driver.teardown()
    request.addfinalizer(driver.teardown)
    return lambda seconds: make(time_offset=seconds)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call of `prune` is one script."""
    monkeypatch.setattr(administration, "PRUNE_STEPS_MAX", 1)


def completed(driver: RedisDriver, queue: str, count: int = 1) -> None:
    for first in range(0, count, 1_000):
        push(driver, *[new_job(queue) for _ in range(min(1_000, count - first))])
        claims = lend(driver, join(driver), queue, limit=1_000)
        driver.settle([settlement(claim, Verb.COMPLETE) for claim in claims])


def pruned(driver: RedisDriver, *, age: float = 3600, limit: int = 1_000) -> int:
    """How many went until it said that there is no more."""
    total = 0
    for _ in range(CALLS_MAX):
        round_of_it = driver.prune(completed_older_than=age, limit=limit)
        total += round_of_it.completed
        if not round_of_it.has_more:
            return total
    raise AssertionError("it never came round")


@pytest.mark.parametrize("many", [1, 2_000])
def test_a_retention_below_the_resend_window_looks_at_no_job_of_the_last_hour(
    start: Callable[..., servers.Server], many: int
) -> None:
    url = start().url
    completed(RedisDriver(url), "q", many)
    queue = JobQueue(RedisDriver(url, time_offset=1_200), {"completed_job_retention": 0})
    queue.prune()  # connects, and has the server know the script
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        client.config_resetstat()
        assert queue.prune() == Pruned()
        stats = client.info("commandstats")
    assert stats["cmdstat_zrangebyscore"]["calls"] == 3  # one for each state: nothing ended before that
    assert "cmdstat_hmget" not in stats
    assert queue.prune(completed_older_than=600).completed == many


def test_queues_behind_more_than_one_call_looks_at_get_their_turn(at: At) -> None:
    driver = at(0)
    for number in range(250):
        driver.pause(f"empty-{number}")
    completed(driver, "last")
    assert pruned(at(7200)) == 1


def test_it_comes_round_before_it_says_that_there_is_no_more(at: At, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(administration, "PRUNE_STEPS_MAX", 3)
    driver = at(7200)
    completed(at(0), "m", 2)
    assert driver.prune(completed_older_than=3600, limit=1) == Pruned(completed=1, has_more=True)
    completed(at(0), "a")
    completed(at(0), "z")
    assert driver.prune(completed_older_than=3600) == Pruned(completed=3)
    assert driver.prune(completed_older_than=3600) == Pruned()


def test_one_of_other_ages_begins_anew(at: At) -> None:
    driver = at(60)
    for number in range(150):
        driver.pause(f"empty-{number:03}")
    completed(at(0), "a")
    assert driver.prune(completed_older_than=3600) == Pruned(has_more=True)
    assert driver.prune(completed_older_than=0) == Pruned(completed=1, has_more=True)


def test_threads_that_prune_at_once_delete_all_of_it_once(at: At) -> None:
    completed(at(7200), "a", 3_000)
    for queue in ("b", "c", "d"):
        completed(at(0), queue, 100)
    driver, totals = at(7300), []
    threads = [threading.Thread(target=lambda: totals.append(pruned(driver, limit=7)), daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(totals) == 4
    assert sum(totals) == 300
