"""What only this store can suffer: lost scripts, restarts, frozen servers, failovers. What was answered, holds."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
import redis

import servers
from protojobs.errors import StoreUnavailable
from protojobs.port.lifecycle import Verb
from protojobs.testing.conformance.steps import fresh_ids, job_of, join, lend, new_job, push, settlement, their_ids
from protojobs_redis import RedisDriver

Start = Callable[..., servers.Server]
PATIENCE_S = 30.0


def test_scripts_that_the_server_forgot_are_sent_again(valkey_url: str) -> None:
    driver = RedisDriver(valkey_url, namespace="flushed")
    driver.teardown()
    worker, ids = join(driver), fresh_ids(50)
    with contextlib.closing(redis.Redis.from_url(valkey_url)) as client:
        push(driver, *[new_job(id=job_id) for job_id in ids])
        done: list[str] = []
        claims = lend(driver, worker, limit=7)
        while claims:
            client.script_flush()
            said = [settlement(claim, Verb.COMPLETE) for claim in claims]
            reply = driver.settle_and_claim(worker, said, ["q"], slots=7, limit=7)
            client.script_flush()
            driver.wait(["q"], 0)
            done += [answer.id for answer in reply.settled]
            claims = list(reply.claimed)
    assert done == ids
    assert driver.stats().completed == 50
    driver.teardown()


@pytest.mark.parametrize("how", ["crash", "restart"])
def test_a_restart_under_load_loses_and_doubles_nothing(how: str) -> None:
    with servers.started("valkey") as server:
        stored: list[str] = []
        done: list[str] = []
        stop = threading.Event()
        threads = [
            threading.Thread(target=push_on, args=(server.url, stored, stop), daemon=True),
            threading.Thread(target=work_on, args=(server.url, done, stop), daemon=True),
        ]
        for thread in threads:
            thread.start()
        for _ in range(3):
            before = len(stored), len(done)
            servers.until(
                lambda b=before: len(stored) > b[0] + 20 and len(done) > b[1] + 20, "no work", limit=PATIENCE_S
            )
            getattr(server, how)()
        stop.set()
        for thread in threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
        driver = RedisDriver(server.url, time_offset=1000)
        driver.reclaim(1000)
        rest = lend(driver, join(driver), limit=1000)
        driver.settle([settlement(claim, Verb.COMPLETE) for claim in rest])
        assert len(done) == len(set(done))
        jobs = driver.stats()
        assert (jobs.completed, jobs.total) == (jobs.total, jobs.completed)
        found = [job.id for start in range(0, len(stored), 1000) for job in driver.get(stored[start : start + 1000])]
        assert sorted(found) == sorted(stored)


def push_on(url: str, stored: list[str], stop: threading.Event) -> None:
    """Push, and again after an outage with the same id."""
    driver = RedisDriver(url)
    while not stop.is_set():
        job = new_job()
        while True:
            try:
                driver.enqueue([job])
                break
            except StoreUnavailable:
                time.sleep(0.02)
        stored.append(job.id)


def work_on(url: str, done: list[str], stop: threading.Event) -> None:
    """Claim and complete; after an unknown outcome say it again, and adopt what the store says we hold."""
    driver = RedisDriver(url)
    worker = join(driver)
    claims = []
    while not stop.is_set() or claims:
        said = [settlement(claim, Verb.COMPLETE) for claim in claims]
        try:
            reply = driver.settle_and_claim(worker, said, ["q"], slots=10, limit=10)
            done += [answer.id for answer in reply.settled if answer.status.value != "stale"]
            claims = list(reply.claimed)
        except StoreUnavailable:
            time.sleep(0.02)
            with contextlib.suppress(StoreUnavailable):
                claims += [job for job in driver.held(worker) if job.id not in their_ids(claims)]


def test_a_wait_ends_in_time_when_the_server_freezes(start: Start) -> None:
    server = start()
    driver = RedisDriver(server.url)
    assert driver.wait(["q"], 0.05) is False
    server.freeze()
    try:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            driver.wait(["q"], 0.3)
        assert time.monotonic() - began < 2.5
    finally:
        server.thaw()
    assert driver.wait(["q"], 0.05) is False


def test_one_push_wakes_one_of_two_waiters_and_a_full_claim_the_next(valkey_url: str) -> None:
    driver = RedisDriver(valkey_url, namespace="bells")
    driver.teardown()
    woken: list[int] = []
    worker = join(driver)

    def listen(place: int) -> None:
        if driver.wait(["q"], 8.0):
            woken.append(place)
            lend(driver, worker, limit=1)

    threads = [threading.Thread(target=listen, args=(place,), daemon=True) for place in range(2)]
    for thread in threads:
        thread.start()
    with contextlib.closing(redis.Redis.from_url(valkey_url)) as client:
        servers.until(lambda: client.info("clients")["blocked_clients"] >= 2, "nobody waits", limit=PATIENCE_S)
    began = time.monotonic()
    push(driver, new_job(), new_job())
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sorted(woken) == [0, 1]
    assert time.monotonic() - began < 4.0
    driver.teardown()


def test_a_delayed_job_ends_the_wait_when_it_becomes_due(valkey_url: str) -> None:
    driver = RedisDriver(valkey_url, namespace="delayed")
    driver.teardown()
    push(driver, new_job(delay=0.3))
    began = time.monotonic()
    assert driver.wait(["q"], 5.0) is True
    assert 0.2 < time.monotonic() - began < 4.0
    driver.teardown()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_has_connections_of_its_own(valkey_url: str) -> None:
    driver = RedisDriver(valkey_url, namespace="forked")
    driver.teardown()
    push(driver)
    driver.wait(["q"], 0)
    child = os.fork()
    if child == 0:
        try:
            push(driver)
            os._exit(0 if driver.wait(["q"], 0) else 1)
        except BaseException:
            os._exit(2)
    for _ in range(20):
        push(driver)
    assert os.waitpid(child, 0)[1] == 0
    assert driver.stats().pending == 22
    driver.teardown()


def test_the_primary_is_found_through_sentinels_and_again_after_it_moved(start: Start) -> None:
    primary = start()
    replica = start(f"replicaof 127.0.0.1 {urlsplit(primary.url).port}")
    sentinel = start(
        f"sentinel monitor jobs 127.0.0.1 {urlsplit(primary.url).port} 1",
        "sentinel down-after-milliseconds jobs 1000",
        is_sentinel=True,
    )
    driver = RedisDriver(f"redis+sentinel://127.0.0.1:{urlsplit(sentinel.url).port}/jobs/0")
    (job_id,) = push(driver)
    with (
        contextlib.closing(redis.Redis.from_url(sentinel.url)) as client,
        contextlib.closing(redis.Redis.from_url(replica.url)) as other,
    ):
        servers.until(lambda: other.info("replication")["master_link_status"] == "up", "no replica", limit=PATIENCE_S)
        servers.until(lambda: client.sentinel_master("jobs")["num-slaves"] == 1, "not seen", limit=PATIENCE_S)
        client.execute_command("SENTINEL FAILOVER", "jobs")
        servers.until(lambda: other.info("replication")["role"] == "master", "no failover", limit=PATIENCE_S)

    def works() -> bool:
        with contextlib.suppress(StoreUnavailable):
            return len(push(driver)) == 1
        return False

    servers.until(works, "the new primary was not found", limit=PATIENCE_S)
    assert job_of(driver, job_id).id == job_id
