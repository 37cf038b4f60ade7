"""How jobs are kept: names in keys, times far ahead, and what a job costs."""

from __future__ import annotations

import contextlib
import threading
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
import redis

import servers
from protojobs.port.lifecycle import Verb
from protojobs.port.records import JobFilter
from protojobs.testing.conformance.plans import new_schedule, store_schedule
from protojobs.testing.conformance.steps import all_jobs, job_of, join, lend, new_job, push, settle, their_ids
from protojobs_redis import RedisDriver

HOSTILE = ("a}b{c", "{other}:rows", "*", "q:1:2", "[a-z]?", "\\", "lane:0:q", "é 漢 🎈", "-", "(a", "[a", "+")


@pytest.fixture
def driver(request: pytest.FixtureRequest, valkey_url: str) -> RedisDriver:
    driver = RedisDriver(valkey_url, namespace=request.node.name[:100])
    driver.teardown()
    request.addfinalizer(driver.teardown)
    return driver


@pytest.mark.parametrize("store", ["valkey_url", "cluster_urls"])
def test_hostile_names_stay_in_the_namespace_and_apart(request: pytest.FixtureRequest, store: str) -> None:
    found = request.getfixturevalue(store)
    url = found if isinstance(found, str) else found[0]
    driver = RedisDriver(url, namespace="ho*t[i]le?")
    driver.teardown()
    push(driver, *[new_job(name, job_name=name, priority=7) for name in HOSTILE])
    worker = join(driver)
    assert [queue.name for queue in driver.queues()] == sorted(HOSTILE)
    for name in HOSTILE:
        (claim,) = lend(driver, worker, name)
        assert (claim.queue, claim.job_name) == (name, name)
        settle(driver, claim, Verb.FAIL)
        assert their_ids(all_jobs(driver, JobFilter(queue=name))) == [claim.id]
        assert [failed.job_id for failed in driver.failed(queue=name).jobs] == [claim.id]
        assert driver.clear(name).failed == 1
    assert driver.stats().total == 0
    driver.teardown()
    other = RedisDriver(url, namespace="hotit")
    push(other)
    driver.teardown()
    assert other.stats().total == 1
    other.teardown()


def test_a_teardown_leaves_no_key_and_touches_no_other(driver: RedisDriver, valkey_url: str) -> None:
    neighbour = RedisDriver(valkey_url, namespace="neighbour")
    push(neighbour)
    push(driver, *[new_job(f"q{number}") for number in range(300)])
    driver.pause("quiet")
    store_schedule(driver, new_schedule(due=driver.now()))
    lend(driver, join(driver), "q1")
    driver.teardown()
    with contextlib.closing(redis.Redis.from_url(valkey_url)) as client:
        assert [key for key in client.scan_iter(count=1000) if b"teardown" in key] == []
    assert neighbour.stats().total == 1
    neighbour.teardown()


@pytest.mark.parametrize("how", ["clear", "prune"])
def test_a_queue_without_jobs_leaves_no_key(driver: RedisDriver, valkey_url: str, how: str) -> None:
    worker, names = join(driver), ["a", "b", "paused"]
    push(driver, *[new_job(name, priority=priority) for name in names for priority in (0, 5)])
    for claim in lend(driver, worker, *names, limit=9):
        settle(driver, claim, Verb.COMPLETE)
    driver.pause("paused")
    if how == "clear":
        assert [driver.clear(name).completed for name in names] == [2, 2, 2]
    else:
        later = RedisDriver(valkey_url, namespace=driver.namespace, time_offset=100)
        assert later.prune(completed_older_than=10).completed == 6
    driver.resume("paused")
    with contextlib.closing(redis.Redis.from_url(valkey_url)) as client:
        names = [key.decode() for key in client.scan_iter(count=1000)]
    prefix = f"{{{driver.namespace}}}:"
    left = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    assert left - {"layout"} == {"workers", "leases"}


def test_a_waiter_hears_of_a_queue_whose_keys_are_gone(driver: RedisDriver, valkey_url: str) -> None:
    heard: list[bool] = []
    push(driver)
    assert driver.clear("q").pending == 1
    thread = threading.Thread(target=lambda: heard.append(driver.wait(["q"], 20.0)), daemon=True)
    with contextlib.closing(redis.Redis.from_url(valkey_url)) as client:
        thread.start()
        servers.until(lambda: client.info("clients")["blocked_clients"] >= 1, "nobody waits", limit=30)
        push(driver, new_job(delay=60))
        assert driver.clear("q").pending == 1
        push(driver)
        thread.join(30)
    assert heard == [True]


@pytest.mark.parametrize("year", [2254, 2256, 2600, 9999])
def test_times_far_ahead_are_kept_exactly_and_never_come_early(driver: RedisDriver, valkey_url: str, year: int) -> None:
    start = datetime(year, 12, 31, 23, 59, 59, 900_000, tzinfo=UTC)
    moments = [start + timedelta(microseconds=step) for step in (0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 90_001, 99_999)]
    ids = push(driver, *[new_job(available_at=moment) for moment in moments])
    assert [job_of(driver, job_id).available_at for job_id in ids] == moments
    offset = (start - driver.now()).total_seconds()
    late = RedisDriver(valkey_url, namespace=driver.namespace, time_offset=offset - 60)
    assert lend(late, join(late)) == []
    claims = lend(driver, join(driver))
    assert claims == []
    assert driver.stats().scheduled == len(moments)
    (moved, _) = driver.export_jobs("token")
    assert sorted(job.available_at for job in moved) == moments
    driver.drop_exported("token", ids)
    driver.import_jobs(moved)
    assert sorted(job.available_at for job in driver.get(ids)) == moments


def test_lanes_far_ahead_are_lent_in_order_when_they_are_due(driver: RedisDriver, valkey_url: str) -> None:
    start = datetime(2300, 1, 1, tzinfo=UTC)
    moments = [start + timedelta(microseconds=100 * step) for step in range(10)]
    ids = push(driver, *[new_job(available_at=moment) for moment in reversed(moments)])[::-1]
    offset = (start - driver.now()).total_seconds() + 10
    then = RedisDriver(valkey_url, namespace=driver.namespace, time_offset=offset)
    assert their_ids(lend(then, join(then))) == ids


@pytest.mark.parametrize("count", [5_000])
def test_a_pending_job_costs_a_few_hundred_bytes(driver: RedisDriver, valkey_url: str, count: int) -> None:
    with contextlib.closing(redis.Redis.from_url(valkey_url)) as client:
        size = partial(client.info, "memory")
        before = size()["used_memory"]
        for _ in range(0, count, 1_000):
            push(driver, *[new_job(data='"' + "x" * 98 + '"') for _ in range(1_000)])
        used = (size()["used_memory"] - before) / count
    print(f"{used:.0f} bytes for each pending job of 100 bytes")
    assert used < 700
