"""Notes in Redis: what one script reads is bounded, several read the whole, and what has expired leaves no key."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
import redis
from msgspec.structs import replace

import servers
from protojobs.entropy import fresh_id
from protojobs.port.lifecycle import Verb
from protojobs.port.observing import HOUR, MINUTE
from protojobs.testing.conformance.grouping import all_alike, assert_groups_are_true, fail_as
from protojobs.testing.conformance.observing import acted, counted, ran
from protojobs.testing.conformance.steps import all_failed, join, lend, new_job, push, settlement
from protojobs_redis import RedisDriver, inspection, observing
from protojobs_redis.runner import ScriptRunner

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
    run, taken = ScriptRunner.run, list[str]()

    def noted(self: ScriptRunner, name: str, *arguments: str | bytes | int, is_kept: bool = False) -> object:
        taken.append(name)
        return run(self, name, *arguments, is_kept=is_kept)

    monkeypatch.setattr(ScriptRunner, "run", noted)
    with contextlib.closing(RedisDriver(valkey_url, time_offset=YEAR_S)) as ahead:
        assert ahead.sample_depths() is True
    assert taken.count("begin_sample") == 3
    assert keys_of(driver, valkey_url) == {"depths", "layout"}


def test_old_notes_go_while_there_is_time_and_the_next_sample_goes_on(
    driver: RedisDriver, valkey_url: str, monkeypatch
) -> None:
    at = driver.now().replace(second=0, microsecond=0)
    for _ in range(12):
        driver.record("w", [], [ran(at) for _ in range(1_000)])
    for minute, seconds, has_left in ((0, 0.0, True), (1, 600.0, False)):
        monkeypatch.setattr(observing, "EXPIRY_S", seconds)
        with contextlib.closing(RedisDriver(valkey_url, time_offset=YEAR_S + 60 * minute)) as ahead:
            assert ahead.sample_depths() is True
        assert ("notes" in keys_of(driver, valkey_url)) is has_left


def sizes(valkey_url: str) -> dict[str, int]:
    """How many attempts there are, and of how many jobs, by each of the keys that say so."""
    with contextlib.closing(redis.Redis.from_url(valkey_url)) as client:
        return {
            "notes": client.hlen("{protojobs}:notes"),
            "noted": client.hlen("{protojobs}:noted"),
            "noted_at": client.zcard("{protojobs}:noted_at"),
        }


def test_the_notes_of_an_incident_are_bounded_in_number_and_the_newest_are_kept(
    driver: RedisDriver, valkey_url: str, monkeypatch
) -> None:
    monkeypatch.setattr(observing, "ATTEMPTS_KEPT_MAX", 50)
    began = driver.now().replace(second=0, microsecond=0)
    noted = [[ran(began + timedelta(seconds=step)) for _ in range(30)] for step in range(4)]
    for notes in noted:
        driver.record("w", [], notes)
        driver.record("w", [], notes)  # sent again: changes nothing
    assert sizes(valkey_url) == {"notes": 50, "noted": 50, "noted_at": 50}
    assert [len(driver.attempts(note.job_id)) for note in noted[0] + noted[1]] == [0] * 60
    assert sum(len(driver.attempts(note.job_id)) for note in noted[2]) == 20
    assert [driver.attempts(note.job_id) for note in noted[3]] == [[note] for note in noted[3]]


def test_a_job_that_fails_in_one_way_for_ever_has_its_first_notes_and_the_latest(
    driver: RedisDriver, valkey_url: str
) -> None:
    minute, job_id = driver.now(), fresh_id()
    notes = [ran(minute, job_id, claim_seq=seq) for seq in range(1, 1001)]
    other = ran(minute, job_id, claim_seq=1001, fingerprint="other")
    for sent in (notes[:300], notes[300:], [other], notes[:300], notes[500:600]):
        driver.record("w", [], sent)
    assert driver.attempts(job_id) == [*notes[:3], notes[-1], other]
    assert sizes(valkey_url) == {"notes": 5, "noted": 1, "noted_at": 1}


def test_notes_go_with_their_job(driver: RedisDriver, valkey_url: str) -> None:
    def failed(count: int) -> list[str]:
        push(driver, *[new_job() for _ in range(count)])
        claims = lend(driver, join(driver))
        driver.settle([settlement(claim, Verb.FAIL) for claim in claims])
        driver.record("w", [], [ran(driver.now(), claim.id, claim_seq=seq) for claim in claims for seq in (1, 2)])
        return [claim.id for claim in claims]

    failed(3)
    stays = ran(driver.now())
    driver.record("w", [], [stays])
    assert sizes(valkey_url) == {"notes": 7, "noted": 4, "noted_at": 4}
    driver.clear("q")
    assert sizes(valkey_url) == {"notes": 1, "noted": 1, "noted_at": 1}
    failed(3)
    assert driver.forget_failed([row.id for row in all_failed(driver)]) == 3
    failed(3)
    with contextlib.closing(RedisDriver(valkey_url, time_offset=100.0)) as ahead:
        assert ahead.prune(failed_older_than=10.0).failed == 3
    ids = failed(3)
    driver.export_jobs("token")
    assert driver.drop_exported("token", ids) == 3
    assert sizes(valkey_url) == {"notes": 1, "noted": 1, "noted_at": 1}
    assert driver.attempts(stays.job_id) == [stays]


def test_a_note_holds_the_end_of_the_traceback(driver: RedisDriver) -> None:
    note = ran(driver.now(), error="é" * 9_000)
    driver.record("w", [], [note])
    assert [found.error for found in driver.attempts(note.job_id)] == ["é" * 1_024]


def test_a_server_whose_memory_is_half_full_takes_only_the_counts_of_all_jobs(
    start: Callable[..., servers.Server],
) -> None:
    server = start()
    with (
        contextlib.closing(RedisDriver(server.url)) as driver,
        contextlib.closing(redis.Redis.from_url(server.url)) as client,
    ):
        minute = driver.now().replace(second=0, microsecond=0)
        used = client.info("memory")["used_memory"]
        for share, kept in ((0.75, False), (0.25, True)):
            client.config_set("maxmemory", int(used / share))
            note, name = ran(minute), f"q{share}"
            driver.record("w", [counted(minute, count=3), counted(minute, queue=name, job_name="j")], [note])
            span = (minute, minute + timedelta(minutes=1))
            assert driver.attempts(note.job_id) == ([note] if kept else [])
            assert [row.count for row in driver.rollups(MINUTE, *span)] == [3]
            assert len(driver.rollups(MINUTE, *span, queue=name)) == kept


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
