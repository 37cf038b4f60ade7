"""Waiting for replicas: what counts only when they have it, and what is not held up by that."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
import redis

import servers
from protojobs.errors import StoreUnavailable
from protojobs.port.lifecycle import Verb
from protojobs.port.records import CancelAnswer, SettleStatus
from protojobs.port.schedules import FireStatus
from protojobs.testing.conformance.plans import firing_of, new_schedule, outcomes, paused, schedule_of, store_schedule
from protojobs.testing.conformance.steps import join, lend, new_job, push, settlement
from protojobs_redis import RedisDriver

pytestmark = pytest.mark.slow  # run by `python3 dev.py test-slow`

PATIENCE_S = 30.0
OPTIONS = "?wait_replicas=1&wait_timeout=0.2"
REFUSED = "0 of 1 replicas"


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[str, servers.Server]]:
    """A primary's URL, and its only replica."""
    with contextlib.ExitStack() as stack:
        primary, replica = (stack.enter_context(servers.started("valkey")) for _ in range(2))
        client = stack.enter_context(contextlib.closing(redis.Redis.from_url(replica.url)))
        client.replicaof("127.0.0.1", str(urlsplit(primary.url).port))
        servers.until(lambda: client.info("replication")["master_link_status"] == "up", "no link", limit=PATIENCE_S)
        yield primary.url, replica


@pytest.fixture
def driver(pair: tuple[str, servers.Server]) -> Iterator[RedisDriver]:
    driver = RedisDriver(pair[0] + OPTIONS)
    yield driver
    driver.teardown()
    driver.close()


@pytest.fixture
def frozen(pair: tuple[str, servers.Server]) -> Iterator[Callable[[], None]]:
    """`frozen()`: from now on the replica says nothing."""
    yield pair[1].freeze
    pair[1].thaw()


def test_while_the_replica_follows_all_goes_on(driver: RedisDriver) -> None:
    push(driver, *(new_job() for _ in range(3)))
    worker = join(driver)
    claims = lend(driver, worker)
    reply = driver.settle_and_claim(worker, [settlement(c, Verb.COMPLETE) for c in claims], ["q"], slots=9, limit=9)
    assert [answer.status for answer in reply.settled] == [SettleStatus.APPLIED] * 3


def test_a_push_that_the_replica_does_not_have_is_not_acknowledged(
    driver: RedisDriver, frozen: Callable[[], None]
) -> None:
    job = new_job()
    frozen()
    with pytest.raises(StoreUnavailable, match=REFUSED):
        driver.enqueue([job])
    assert driver.stats().pending == 1


def test_a_push_sent_again_waits_too_though_nothing_is_left_to_write(
    driver: RedisDriver, frozen: Callable[[], None]
) -> None:
    """On a new connection the server would look at the last write of that connection: there is none."""
    job = new_job()
    driver.now()
    frozen()
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=REFUSED):
            driver.enqueue([job])
        driver.close()


def test_a_push_sent_again_is_acknowledged_once_the_replica_has_it(
    driver: RedisDriver, frozen: Callable[[], None], pair: tuple[str, servers.Server]
) -> None:
    job = new_job()
    frozen()
    with pytest.raises(StoreUnavailable, match=REFUSED):
        driver.enqueue([job])
    pair[1].thaw()
    assert [answer.duplicate_of for answer in driver.enqueue([job])] == [job.id]


@pytest.fixture
def full(pair: tuple[str, servers.Server]) -> Iterator[Callable[[], None]]:
    """`full()`: the primary is at its memory limit."""
    with contextlib.closing(redis.Redis.from_url(pair[0])) as client:
        yield lambda: client.config_set("maxmemory", client.info("memory")["used_memory"] - 50_000)
        client.config_set("maxmemory", 0)


def test_a_push_sent_again_to_a_full_server_is_not_acknowledged_before_the_replica_has_it(
    driver: RedisDriver, frozen: Callable[[], None], full: Callable[[], None], pair: tuple[str, servers.Server]
) -> None:
    job = new_job()
    frozen()
    with pytest.raises(StoreUnavailable, match=REFUSED):
        driver.enqueue([job])
    full()
    driver.close()  # another connection, which has written nothing
    with pytest.raises(StoreUnavailable):
        driver.enqueue([job])
    pair[1].thaw()
    assert [answer.duplicate_of for answer in driver.enqueue([job])] == [job.id]


def test_on_a_full_server_running_jobs_still_settle(driver: RedisDriver, full: Callable[[], None]) -> None:
    push(driver)
    worker = join(driver)
    claims = lend(driver, worker)
    full()
    with pytest.raises(StoreUnavailable, match="at its maxmemory"):
        push(driver)
    answers = driver.settle([settlement(claim, Verb.COMPLETE) for claim in claims])
    assert [answer.status for answer in answers] == [SettleStatus.APPLIED]


def test_a_push_sent_again_is_refused_while_the_server_itself_misses_replicas(
    driver: RedisDriver, pair: tuple[str, servers.Server]
) -> None:
    job = new_job()
    driver.enqueue([job])
    with contextlib.closing(redis.Redis.from_url(pair[0])) as client:
        client.config_set("min-replicas-to-write", 2)
        try:
            driver.close()
            with pytest.raises(StoreUnavailable, match="NOREPLICAS"):
                driver.enqueue([job])
        finally:
            client.config_set("min-replicas-to-write", 0)
    assert [answer.duplicate_of for answer in driver.enqueue([job])] == [job.id]


def test_a_push_sent_again_is_refused_while_the_server_cannot_save_its_data(
    start: Callable[..., servers.Server],
) -> None:
    server = start("appendonly no", "save 3600 1", "stop-writes-on-bgsave-error yes", "enable-protected-configs yes")
    job = new_job()
    with (
        contextlib.closing(RedisDriver(server.url)) as waits_not,
        contextlib.closing(RedisDriver(server.url + OPTIONS)) as driver,
        contextlib.closing(redis.Redis.from_url(server.url)) as client,
    ):
        waits_not.enqueue([job])
        client.config_set("dir", "/proc")  # where nobody may make a file
        client.bgsave()
        servers.until(
            lambda: client.info("persistence")["rdb_last_bgsave_status"] != "ok", "the snapshot does", limit=PATIENCE_S
        )
        with pytest.raises(StoreUnavailable, match="cannot save its data"):
            driver.enqueue([job])


def test_a_result_that_the_replica_does_not_have_is_sent_again(
    driver: RedisDriver, frozen: Callable[[], None], pair: tuple[str, servers.Server]
) -> None:
    push(driver)
    worker = join(driver)
    done = [settlement(claim, Verb.COMPLETE) for claim in lend(driver, worker)]
    frozen()
    with pytest.raises(StoreUnavailable, match=REFUSED):
        driver.settle(done)
    pair[1].thaw()
    assert [answer.status for answer in driver.settle(done)] == [SettleStatus.REPEATED]


def test_a_cancel_waits_too(driver: RedisDriver, frozen: Callable[[], None], pair: tuple[str, servers.Server]) -> None:
    ids = push(driver)
    frozen()
    with pytest.raises(StoreUnavailable, match=REFUSED):
        driver.cancel(ids)
    pair[1].thaw()
    assert driver.cancel(ids) == [CancelAnswer.FINISHED]


def test_a_firing_waits_too_and_is_done_once(
    driver: RedisDriver, frozen: Callable[[], None], pair: tuple[str, servers.Server]
) -> None:
    said = firing_of(store_schedule(driver, new_schedule(due=driver.now())))
    frozen()
    with pytest.raises(StoreUnavailable, match=REFUSED):
        driver.fire([said])
    pair[1].thaw()
    assert outcomes(driver, said) == [FireStatus.LOST]  # it has moved on
    assert driver.stats().pending == 1


def test_saving_and_removing_a_schedule_wait_too_and_reading_it_does_not(
    driver: RedisDriver, frozen: Callable[[], None]
) -> None:
    schedule = store_schedule(driver, new_schedule(due=driver.now()))
    frozen()
    with pytest.raises(StoreUnavailable, match=REFUSED):
        paused(driver, schedule)
    assert schedule_of(driver, "s").is_paused
    assert driver.due_schedules(10).schedules == ()
    assert len(driver.list_schedules().schedules) == 1
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=REFUSED):
            driver.remove_schedule("s")
    assert driver.list_schedules().schedules == ()


def test_each_step_of_a_transfer_waits_so_that_no_job_is_in_two_stores(
    driver: RedisDriver, frozen: Callable[[], None], pair: tuple[str, servers.Server]
) -> None:
    ids = push(driver)
    frozen()
    with pytest.raises(StoreUnavailable, match=REFUSED):
        driver.export_jobs("token")
    pair[1].thaw()
    assert [job.id for job in driver.export_jobs("token")[0]] == ids
    frozen()
    with pytest.raises(StoreUnavailable, match=REFUSED):
        driver.drop_exported("token", ids)
    pair[1].thaw()
    assert driver.drop_exported("token", ids) == 0  # it was done before
    assert driver.stats().total == 0


def test_pausing_and_resuming_wait_too(driver: RedisDriver, frozen: Callable[[], None]) -> None:
    frozen()
    for change in (driver.pause, driver.resume):
        with pytest.raises(StoreUnavailable, match=REFUSED):
            change("q")


def test_claims_heartbeats_and_questions_do_not_wait(driver: RedisDriver, frozen: Callable[[], None]) -> None:
    push(driver)
    frozen()
    began = time.monotonic()
    worker = join(driver)
    driver.heartbeat(worker, {})
    assert len(lend(driver, worker)) == 1
    assert driver.settle_and_claim(worker, [], ["q"], slots=1, limit=1).claimed == ()
    assert driver.stats().processing == 1
    assert time.monotonic() - began < 0.2


def test_a_cluster_without_replicas_keeps_nothing_that_waits_for_them(cluster_urls: list[str]) -> None:
    for url in cluster_urls:  # two of them do not hold the namespace
        driver = RedisDriver(url + OPTIONS, namespace="lonely")
        with pytest.raises(StoreUnavailable, match=REFUSED):
            push(driver)
        driver.close()
    driver = RedisDriver(cluster_urls[0], namespace="lonely")
    assert driver.stats().pending == len(cluster_urls)
    driver.teardown()
    driver.close()
