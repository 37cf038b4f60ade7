"""How schedules are kept: what a tick costs, a server at its memory limit, times far ahead, what one takes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
import redis
from msgspec.structs import replace

import servers
from protojobs import JobQueue, Scheduler
from protojobs.errors import StoreUnavailable
from protojobs.port.schedules import FireStatus
from protojobs.testing.conformance.plans import (
    MICROSECOND,
    MINUTE,
    all_schedules,
    firing_of,
    new_schedule,
    outcomes,
    schedule_of,
    store_schedule,
)
from protojobs_redis import RedisDriver

Start = Callable[..., servers.Server]

DUE = 100
STEPS = 3  # of one tick: what is due, fire, what is due now
# What the server does in these steps. In each: EVALSHA, TIME. Twice: what is due, what is first ahead (ZRANGEBYSCORE)
# and its HGET; once the schedules that were found (2 HMGET). To fire: 2 HMGET for schedules and jobs, 3 HSET for them,
# 4 ZADD for next times, ids of jobs, their lane and its name, HINCRBY for the count of jobs, SISMEMBER and ZADD for the
# doorbell. A hundred fit each of them, so one schedule more costs none.
COMMANDS_MAX = 6 + 8 + 12
COUNTING = ("config|resetstat", "info")  # what the test itself asks


@pytest.fixture
def driver(request: pytest.FixtureRequest, valkey_url: str) -> RedisDriver:
    driver = RedisDriver(valkey_url, namespace=request.node.name[:100])
    driver.teardown()
    request.addfinalizer(driver.teardown)
    return driver


@pytest.mark.parametrize(("store", "stored"), [("server", 10_000), ("cluster", 1_000)])
def test_what_a_tick_costs_does_not_depend_on_how_many_schedules_there_are(
    request: pytest.FixtureRequest, start: Start, store: str, stored: int
) -> None:
    """On a store to which nobody else speaks, so that what it does can be counted."""
    urls: list[str] = [start().url] if store == "server" else request.getfixturevalue("cluster_urls")
    driver = RedisDriver(urls[0], namespace="ticks")
    scheduler = Scheduler(JobQueue(driver))
    costs: list[tuple[int, int]] = []
    for first, last in ((0, DUE), (DUE, DUE + 1), (DUE + 1, stored)):  # the first round makes scripts and queue known
        store_ahead(driver, *(f"{number:05}" for number in range(first, last)))
        make_due(driver)
        with counted(urls) as commands:
            assert scheduler.tick().fired == DUE
        costs.append((commands["evalsha"], sum(commands.values())))
    print(f"{store}: scripts and commands of a tick among {DUE} and among {stored} schedules: {costs[1:]}; {commands}")
    assert costs[1] == costs[2]
    assert costs[2][0] == STEPS
    assert costs[2][1] <= COMMANDS_MAX
    driver.teardown()


def test_a_full_server_refuses_a_firing_whole_and_takes_it_later(start: Start) -> None:
    server = start()
    driver = RedisDriver(server.url)
    due = driver.now() - MINUTE
    kept = [store_schedule(driver, new_schedule(name, due=due)) for name in ("last", "goes on", "passed over")]
    said = [replace(firing_of(kept[0]), next_due=None), firing_of(kept[1]), replace(firing_of(kept[2]), job=None)]
    with contextlib.closing(redis.Redis.from_url(server.url)) as client:
        client.config_set("maxmemory", 1_000_000)
        for several in (said, said[:1], said[2:]):
            with pytest.raises(StoreUnavailable, match="maxmemory"):
                driver.fire(several)
        assert [schedule_of(driver, schedule.id) for schedule in kept] == kept
        assert len(driver.due_schedules(10).schedules) == 3
        assert driver.stats().total == 0
        client.config_set("maxmemory", 0)
    assert outcomes(driver, *said) == [FireStatus.FIRED, FireStatus.FIRED, FireStatus.SKIPPED]
    assert driver.stats().total == 2
    assert driver.due_schedules(10).schedules == (schedule_of(driver, "goes on"), schedule_of(driver, "passed over"))


def test_on_a_full_server_a_schedule_can_be_paused_and_removed_but_not_added(start: Start) -> None:
    server = start()
    driver = RedisDriver(server.url)
    schedule = store_schedule(driver, new_schedule("s", due=driver.now() - MINUTE))
    with contextlib.closing(redis.Redis.from_url(server.url)) as client:
        client.config_set("maxmemory", 1_000_000)
        with pytest.raises(StoreUnavailable, match="maxmemory"):
            driver.save_schedule(new_schedule("more", due=driver.now()), version=0)
        assert driver.save_schedule(replace(schedule, is_paused=True), version=1) is True
        assert driver.due_schedules(10).schedules == ()
        assert all_schedules(driver) == [replace(schedule, is_paused=True, version=2)]
        assert driver.remove_schedule("s") is True
        assert all_schedules(driver) == []


@pytest.mark.parametrize("year", [1960, 1970, 2254, 2256, 2600, 9999])
def test_times_are_kept_and_compared_to_the_microsecond(driver: RedisDriver, year: int) -> None:
    """From 2256 on a double does not hold them; 1970 begins with the number 0, and before it they are negative."""
    first = datetime(year, 1, 1, tzinfo=UTC)
    for number in range(30):
        time = first + number * MICROSECOND
        schedule = replace(new_schedule(f"{number:02}", due=time), start_at=time, end_at=time, last_due_at=time)
        assert store_schedule(driver, schedule) == replace(schedule, version=1)
    if year < 2000:
        assert [each.next_due_at for each in driver.due_schedules(30).schedules] == [
            first + number * MICROSECOND for number in range(30)
        ]
    else:
        assert driver.due_schedules(30).next_due_at == first


@pytest.mark.parametrize("year", [2254, 2256, 2600])
def test_a_firing_far_ahead_is_for_one_time_and_each_fires_once(valkey_url: str, year: int) -> None:
    due = datetime(year, 6, 1, tzinfo=UTC)
    now = RedisDriver(valkey_url, namespace=f"ahead-{year}")
    now.teardown()
    then = RedisDriver(valkey_url, namespace=now.namespace, time_offset=(due - now.now()).total_seconds() + 3600)
    schedule = store_schedule(now, replace(new_schedule(due=due), last_due_at=due - MICROSECOND))
    assert outcomes(now, firing_of(schedule)) == [FireStatus.LOST]
    for other in (due - MICROSECOND, due + MICROSECOND):
        stranger = replace(firing_of(schedule), expected_next=other, due=due + MICROSECOND)
        assert outcomes(then, stranger) == [FireStatus.LOST]
    assert then.due_schedules(10).schedules == (schedule,)
    said = replace(firing_of(schedule), next_due=due + MICROSECOND)
    assert outcomes(then, said, said) == [FireStatus.FIRED, FireStatus.LOST]
    again = replace(schedule_of(then, "s"), next_due_at=due)  # somebody puts it back: the time is over all the same
    assert then.save_schedule(again, version=2) is True
    assert outcomes(then, firing_of(again)) == [FireStatus.LOST]
    on = replace(firing_of(again), due=due + MICROSECOND)
    assert outcomes(then, on) == [FireStatus.FIRED]
    assert schedule_of(then, "s").last_due_at == due + MICROSECOND
    now.teardown()


def test_a_hundred_large_schedules_are_got_and_listed_in_parts_of_a_few_megabytes(driver: RedisDriver) -> None:
    due = driver.now() - MINUTE
    large = [replace(new_schedule(f"{number:03}", due=due), data="x" * 200_000) for number in range(100)]
    kept = [store_schedule(driver, schedule) for schedule in large]
    assert driver.get_schedules([schedule.id for schedule in kept]).schedules == tuple(kept)
    assert 1 < len(driver.list_schedules().schedules) < 100
    assert all_schedules(driver) == kept
    assert driver.due_schedules(100).schedules == tuple(kept)  # none is left out: others may wait behind them


@pytest.mark.parametrize("spoilt", ["step", "plan", "no plan", "misfire", "no step"])
def test_a_schedule_that_cannot_be_read_hides_no_other_and_can_be_removed(
    driver: RedisDriver, valkey_url: str, spoilt: str
) -> None:
    due = driver.now() - MINUTE
    odd, *others = [store_schedule(driver, new_schedule(name, due=due)) for name in ("b odd", "a", "c")]
    prefix = f"{{{driver.namespace}}}:"
    with contextlib.closing(redis.Redis.from_url(valkey_url)) as client:
        if spoilt == "no plan":
            client.hdel(prefix + "plans", odd.id)
        elif spoilt == "misfire":
            plan = client.hget(prefix + "plans", odd.id)
            assert isinstance(plan, bytes)
            client.hset(prefix + "plans", odd.id, plan.replace(b"every 60", b"\xff\xff\xff 60"))
        elif spoilt == "no step":
            client.hset(prefix + "schedules", odd.id, b"")
        else:
            client.hset(prefix + f"{spoilt}s" if spoilt == "plan" else prefix + "schedules", odd.id, b"\xc1garbage")
    for page in (driver.list_schedules(), driver.get_schedules(["a", "b odd", "c"]), driver.due_schedules(10)):
        assert [one.id for one in page.unreadable] == ["b odd"]
        assert sorted(one.id for one in page.schedules) == ["a", "c"]
    first = driver.due_schedules(2)
    assert ([one.id for one in first.unreadable], first.cursor and first.cursor.id) == (["b odd"], "b odd")
    assert [one.id for one in driver.due_schedules(2, cursor=first.cursor).schedules] == ["c"]
    said = [firing_of(odd), *map(firing_of, others)]
    assert outcomes(driver, *said)[1:] == [FireStatus.FIRED, FireStatus.FIRED]
    assert driver.remove_schedule("b odd") is True
    assert driver.list_schedules().unreadable == driver.due_schedules(10).unreadable == ()


def test_the_first_time_ahead_is_told_though_its_schedule_cannot_be_read(driver: RedisDriver, valkey_url: str) -> None:
    ahead = store_schedule(driver, new_schedule("odd", due=driver.now() + MINUTE))
    with contextlib.closing(redis.Redis.from_url(valkey_url)) as client:
        client.hset(f"{{{driver.namespace}}}:schedules", "odd", b"\xc1garbage")
    assert driver.due_schedules(10).next_due_at == ahead.next_due_at


def test_a_removed_schedule_leaves_no_key(driver: RedisDriver, valkey_url: str) -> None:
    driver.setup()
    for schedule in (new_schedule(due=driver.now()), replace(new_schedule(due=None), is_paused=True)):
        store_schedule(driver, schedule)
        assert driver.remove_schedule(schedule.id) is True
        with contextlib.closing(redis.Redis.from_url(valkey_url)) as client:
            keys = client.scan_iter(f"{{{driver.namespace}}}:*", count=1_000)
            assert list(keys) == [f"{{{driver.namespace}}}:layout".encode()]


@pytest.mark.parametrize("count", [2_000])
def test_a_schedule_takes_a_few_hundred_bytes(driver: RedisDriver, valkey_url: str, count: int) -> None:
    with contextlib.closing(redis.Redis.from_url(valkey_url)) as client:
        size = partial(client.info, "memory")
        before = size()["used_memory"]
        store_ahead(driver, *(f"report-{number:05}" for number in range(count)))
        used = (size()["used_memory"] - before) / count
    print(f"{used:.0f} bytes for each schedule")
    assert used < 700


def store_ahead(driver: RedisDriver, *names: str) -> None:
    due = driver.now() + timedelta(days=1)
    for name in names:
        assert driver.save_schedule(new_schedule(name, due=due), version=0) is True


def make_due(driver: RedisDriver) -> None:
    """Let the first DUE of them wait for a time that is over."""
    due = driver.now() - timedelta(seconds=1)
    for schedule in driver.list_schedules(limit=DUE).schedules:
        assert driver.save_schedule(replace(schedule, next_due_at=due), version=schedule.version) is True


@contextlib.contextmanager
def counted(urls: Sequence[str]) -> Iterator[dict[str, int]]:
    """How often each command ran on the nodes within the block, in scripts as well; filled at its end."""
    commands: dict[str, int] = {}
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(contextlib.closing(redis.Redis.from_url(url))) for url in urls]
        for client in clients:
            client.config_resetstat()
        yield commands
        for client in clients:
            for name, found in client.info("commandstats").items():
                command = name.removeprefix("cmdstat_")
                if command not in COUNTING:
                    commands[command] = commands.get(command, 0) + found["calls"]
