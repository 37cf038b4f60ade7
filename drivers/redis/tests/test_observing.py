"""Notes in Redis: what one script reads is bounded, several read the whole, and what has expired leaves no key."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

import pytest
import redis
from msgspec.structs import replace

from protojobs.lifecycle import Verb
from protojobs.observing import HOUR, MINUTE
from protojobs.testing.conformance.grouping import all_alike, assert_groups_are_true, fail_as
from protojobs.testing.conformance.observing import acted, counted, ran
from protojobs.testing.conformance.steps import all_failed, join, lend, new_job, push, settlement
from protojobs_redis import RedisDriver, inspection, observing

MINUTES = 40
YEAR_S = 366 * 86_400.0


@pytest.fixture
def driver(valkey_url: str) -> Iterator[RedisDriver]:
    with contextlib.closing(RedisDriver(valkey_url)) as driver:
        driver.teardown()
        yield driver
        driver.teardown()


def keys_of(driver: RedisDriver, valkey_url: str) -> set[str]:
    with contextlib.closing(redis.Redis.from_url(valkey_url)) as client:
        return {key.decode().removeprefix("{protojobs}:") for key in client.keys("{protojobs}:*")}


@pytest.mark.parametrize("step_max", [1, 7, 100_000])
def test_a_span_is_read_in_as_many_scripts_as_it_takes(driver: RedisDriver, monkeypatch, step_max: int) -> None:
    minute = driver.now().replace(second=0, microsecond=0)
    moments = [minute + timedelta(minutes=passed) for passed in range(MINUTES)]
    for worker in ("w1", "w2"):
        rows = [counted(at, queue=queue, job_name="j", count=2) for at in moments for queue in ("a", "b")]
        driver.record(worker, [*rows, *map(counted, moments)], [])
    monkeypatch.setattr(observing, "STEP_MAX", step_max)
    span = (minute, moments[-1] + timedelta(minutes=1))
    assert [(row.began_at, row.count) for row in driver.rollups(MINUTE, *span)] == [(at, 2) for at in moments]
    assert sum(row.count for row in driver.rollups(MINUTE, *span, queue="b")) == 4 * MINUTES
    assert Counter({each.name: each.count for each in driver.totals(MINUTE, *span, by="queue")}) == Counter(
        a=4 * MINUTES, b=4 * MINUTES
    )


def test_of_more_rows_than_are_read_the_latest_count(driver: RedisDriver, monkeypatch) -> None:
    minute = driver.now().replace(second=0, microsecond=0)
    driver.record("w", [counted(minute + timedelta(minutes=passed)) for passed in range(MINUTES)], [])
    monkeypatch.setattr(observing, "READ_MAX", 10)
    found = driver.rollups(MINUTE, minute, minute + timedelta(days=1))
    assert [row.began_at for row in found] == [minute + timedelta(minutes=passed) for passed in range(30, MINUTES)]


@pytest.mark.parametrize("step_max", [1, 3, 5_000])
def test_samples_are_read_in_as_many_scripts_as_it_takes(
    driver: RedisDriver, valkey_url: str, monkeypatch, step_max: int
) -> None:
    push(driver, new_job("a"), new_job("b"))
    since = driver.now() - timedelta(minutes=1)
    for passed in range(4):
        with contextlib.closing(RedisDriver(valkey_url, time_offset=60.0 * passed)) as ahead:
            ahead.sample_depths()
    monkeypatch.setattr(observing, "STEP_MAX", step_max)
    for queue, count in ((None, 8), ("b", 4)):
        found = driver.depths(since, since + timedelta(hours=1), queue=queue)
        assert len(found) == len({(each.at, each.queue) for each in found}) == count


def test_nothing_is_left_of_notes_that_have_outlived_their_time(driver: RedisDriver, valkey_url: str) -> None:
    minute = driver.now().replace(second=0, microsecond=0)
    rows = [
        counted(minute, queue=name, job_name=name, period_s=period) for name in ("", "q") for period in (MINUTE, HOUR)
    ]
    driver.record("w", rows, [ran(minute), ran(minute)])
    driver.note_action(acted(minute))
    with contextlib.closing(RedisDriver(valkey_url, time_offset=YEAR_S)) as ahead:
        assert ahead.sample_depths() is True
        assert ahead.sample_depths() is False
    assert keys_of(driver, valkey_url) == {"depths", "layout"}


def test_old_notes_go_in_short_scripts(driver: RedisDriver, valkey_url: str, monkeypatch) -> None:
    at = driver.now().replace(second=0, microsecond=0)
    for _ in range(5):
        driver.record("w", [], [ran(at) for _ in range(900)])
    run, taken = RedisDriver._run, list[str]()

    def noted(self: RedisDriver, verb: str, *arguments: object, is_kept: bool = False) -> object:
        taken.append(verb)
        return run(self, verb, *arguments, is_kept=is_kept)  # type: ignore[arg-type]

    monkeypatch.setattr(RedisDriver, "_run", noted)
    with contextlib.closing(RedisDriver(valkey_url, time_offset=YEAR_S)) as ahead:
        assert ahead.sample_depths() is True
    assert taken.count("begin_sample") == 3
    assert keys_of(driver, valkey_url) == {"depths", "layout"}


def test_groups_that_do_not_fit_in_one_answer_come_in_several(driver: RedisDriver) -> None:
    large = '"' + "x" * (3 * 1024 * 1024) + '"'
    for fingerprint in ("a", "b", "c", "d"):
        fail_as(driver, fingerprint, data=large)
    assert [each.fingerprint for each in driver.failure_groups()] == ["d", "c", "b", "a"]
    assert {each.last.data for each in driver.failure_groups(chars_max=2)} == {'"x'}


def test_a_page_of_a_group_goes_on_within_a_batch_that_failed_at_once(driver: RedisDriver, monkeypatch) -> None:
    fail_as(driver, "a", 20)
    monkeypatch.setattr(inspection, "STEP_MAX", 3)
    assert all_alike(driver, "a", 7) == all_failed(driver)


def test_no_key_is_left_of_failures_that_are_gone(driver: RedisDriver, valkey_url: str) -> None:
    push(driver, *[new_job() for _ in range(3)])
    claims = lend(driver, join(driver))
    said = [replace(settlement(claim, Verb.FAIL), fingerprint=f"f{place}") for place, claim in enumerate(claims)]
    driver.settle(said)
    assert_groups_are_true(driver, driver, "f0", "f1", "f2")
    first, second, _ = (row.id for row in all_failed(driver))
    driver.retry_failed([first])
    driver.forget_failed([second])
    driver.clear("q")
    left = keys_of(driver, valkey_url)
    assert [key for key in left if key.startswith(("alike", "causes", "fail"))] == []
