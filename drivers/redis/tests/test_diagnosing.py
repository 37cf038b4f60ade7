"""What `protojobs doctor` finds in Redis and Valkey: each finding provoked on a real server."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
import redis

import servers
from protojobs.port.diagnosis import Diagnoses, Finding, Severity
from protojobs.port.lifecycle import JobState, Verb
from protojobs.testing.conformance.steps import join, lend, new_job, push, settle
from protojobs_redis import RedisDriver, diagnosing

Start = Callable[..., servers.Server]
OK, NOTE, WARNING, ERROR = Severity.OK, Severity.NOTE, Severity.WARNING, Severity.ERROR


def found(driver: RedisDriver, code: str) -> Finding:
    (finding,) = [one for one in driver.diagnose() if one.code == code]
    return finding


def codes(driver: RedisDriver, at_least: Severity) -> set[str]:
    return {one.code for one in driver.diagnose() if one.severity >= at_least}


@pytest.fixture
def driver(make_store_url: Callable[[str], str]) -> RedisDriver:
    made = RedisDriver(make_store_url("valkey"))
    made.setup()
    return made


def test_a_server_that_writes_every_push_to_disk_has_nothing_to_mend(start: Start) -> None:
    driver = RedisDriver(start("appendfsync always").url)
    assert isinstance(driver, Diagnoses)
    assert codes(driver, NOTE) == set()
    assert len(driver.diagnose()) >= 6
    assert [one for one in driver.diagnose() if not one.what.endswith(".")] == []
    assert re.match(r"The server is (Valkey|Redis) \d+\.\d+", found(driver, "version").what)


@pytest.mark.parametrize(
    ("settings", "severity", "words"),
    [
        (("appendfsync everysec",), NOTE, "appendfsync everysec"),
        (("appendfsync no",), WARNING, "appendfsync no"),
        (("appendonly no", "save 3600 1"), WARNING, "only snapshots (3600 1)"),
        (("appendonly no",), ERROR, "no snapshot"),
    ],
)
def test_what_a_restart_leaves_of_the_jobs(
    start: Start, settings: tuple[str, ...], severity: Severity, words: str
) -> None:
    finding = found(RedisDriver(start(*settings).url), "persistence")
    assert finding.severity is severity
    assert words in finding.what


def test_what_changes_while_the_server_runs(start: Start) -> None:
    server = start("appendfsync always")
    driver = RedisDriver(server.url)
    driver.setup()
    with contextlib.closing(redis.Redis.from_url(server.url)) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert codes(driver, WARNING) == {"maxmemory_policy"}
        client.set("big", "x" * 4_000_000)
        client.config_set("maxmemory", 3_000_000)  # the next command makes it evict keys
        assert {"maxmemory_policy", "evicted_keys"} <= codes(driver, ERROR)
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 2_500_000)
        client.config_set("maxclients", len(client.client_list()))
        assert {"memory", "max_connections"} <= codes(driver, WARNING)


def test_a_server_that_cannot_write_its_snapshots(start: Start) -> None:
    server = start("appendonly no", "save 3600 1", "stop-writes-on-bgsave-error no", "enable-protected-configs yes")
    driver = RedisDriver(server.url)
    push(driver)
    assert found(driver, "write_errors").severity is OK
    with contextlib.closing(redis.Redis.from_url(server.url)) as client:
        client.config_set("dir", "/proc")  # where nobody may make a file
        client.bgsave()
        servers.until(
            lambda: client.info("persistence")["rdb_bgsave_in_progress"] == 0, "the snapshot did not end", limit=20
        )
    finding = found(driver, "write_errors")
    assert (finding.severity, "rdb_last_bgsave_status" in finding.what) == (ERROR, True)


def test_replicas_that_are_asked_for_and_not_there(start: Start) -> None:
    server = start("appendfsync always")
    assert found(RedisDriver(server.url), "replicas").severity is OK
    assert found(RedisDriver(f"{server.url}?wait_replicas=1"), "replicas").severity is ERROR


def test_replicas_and_what_a_failover_leaves(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    primary = start("appendfsync always", "repl-diskless-sync-delay 0")
    start(f"replicaof 127.0.0.1 {urlsplit(primary.url).port}")
    asks, asks_not = RedisDriver(f"{primary.url}?wait_replicas=1"), RedisDriver(primary.url)
    servers.until(lambda: codes(asks, NOTE) == set(), "the replica did not come", limit=20)
    assert codes(asks_not, NOTE) == {"failover"}
    monkeypatch.setattr(diagnosing, "LAG_MAX_S", -1)
    assert found(asks, "replica_lag").severity is WARNING


def test_what_a_user_with_few_rights_may_not_see(start: Start) -> None:
    server = start("user app on >secret ~* &* +@all -info -config")
    driver = RedisDriver(server.url.replace("redis://", "redis://app:secret@"))
    findings = {one.code: one.severity for one in driver.diagnose()}
    assert findings == {"maxmemory_policy": NOTE, "keys": OK, "not_examined": NOTE}


# ------------------------------------------------------------------------------------------------ a place in the line


def test_the_place_in_the_line(driver: RedisDriver) -> None:
    first, *_ = push(driver, *[new_job() for _ in range(3)])
    push(driver, *[new_job(priority=10) for _ in range(2)], *[new_job(priority=3) for _ in range(4)])
    push(driver, new_job(priority=99, delay=600.0), new_job(priority=-1), new_job("other", priority=50))
    (last,) = push(driver)
    assert driver.in_front(first) == 6
    assert driver.in_front(last) == 9
    assert driver.in_front(last, counted_max=7) == 7
    assert driver.in_front(push(driver, new_job(priority=100))[0]) == 0
    (later,) = push(driver, new_job(delay=600.0))
    assert driver.in_front(later) == 11


def test_jobs_that_are_due_at_the_same_time_stand_by_their_ids(driver: RedisDriver) -> None:
    at = driver.now() - timedelta(seconds=5)
    ids = push(driver, *[new_job(available_at=at) for _ in range(4)])
    assert [driver.in_front(job) for job in sorted(ids)] == [0, 1, 2, 3]


def test_what_is_not_pending_stands_in_no_line(driver: RedisDriver) -> None:
    push(driver)
    (job,) = push(driver)
    lend(driver, join(driver))
    assert driver.in_front(job) == 0
    assert driver.in_front("no such id") == 0


def test_when_the_oldest_job_ended(driver: RedisDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosing, "_QUEUES_STEP", 2)
    assert driver.oldest_ended() == {}
    names = [f"q{number}" for number in range(5)]
    push(driver, *[new_job(name) for name in names])
    first, failed, *others = lend(driver, join(driver), *reversed(names))
    settle(driver, first, Verb.COMPLETE)
    settle(driver, failed, Verb.FAIL)
    for claim in others:
        settle(driver, claim, Verb.COMPLETE)
    ended = {job.id: job.processed_at for job in driver.get([first.id, failed.id])}
    assert driver.oldest_ended() == {JobState.COMPLETED: ended[first.id], JobState.FAILED: ended[failed.id]}
