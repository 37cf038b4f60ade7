"""What a foreign hand has spoilt: one such job is set aside and shown, and holds up nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
import redis
from msgspec.msgpack import encode
from msgspec.structs import replace

from protojobs.errors import ContractBroken
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.records import CancelAnswer, JobFilter, RetryAnswer, SettleStatus
from protojobs.port.unreadable_rows import UNREADABLE, is_unreadable
from protojobs.testing.conformance.steps import (
    all_failed,
    fresh_ids,
    job_of,
    join,
    lend,
    new_job,
    push,
    settlement,
    their_ids,
)
from protojobs_redis import RedisDriver

LATER_S = 1_000.0


class Hand:
    """Somebody who writes into the keys of a namespace."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self.client = client
        self._prefix = prefix

    def key(self, name: str) -> str:
        return f"{self._prefix}{name}"

    def blob(self, job_id: str, *, place: int, value: object) -> None:
        """Put `value` in the place of one of the blob's ten values."""
        values = ["q", "work", "app.Work", "{}", 0, 3, 60.0, None, 60.0, None]
        values[place] = value
        packed = b"".join(b"\xa2\xff\xfe" if one is BAD_TEXT else encode(one) for one in values)
        self.client.hset(self.key("data"), job_id, packed)

    def row(self, job_id: str, *, at: int, value: bytes) -> None:
        """Put bytes into the row."""
        row = bytearray(self.client.hget(self.key("rows"), job_id))
        row[at : at + len(value)] = value
        self.client.hset(self.key("rows"), job_id, bytes(row))


BAD_TEXT = object()
SPOILING: dict[str, Callable[[Hand, str], object]] = {
    "bad utf-8": lambda hand, job_id: hand.blob(job_id, place=3, value=BAD_TEXT),
    "binary": lambda hand, job_id: hand.blob(job_id, place=3, value=b"\xff\x00"),
    "no payload": lambda hand, job_id: hand.blob(job_id, place=3, value=None),
    "a name of the wrong type": lambda hand, job_id: hand.blob(job_id, place=1, value=[1, 2]),
    "a timeout of text": lambda hand, job_id: hand.blob(job_id, place=8, value="soon"),
    "a blob that is none": lambda hand, job_id: hand.client.hset(hand.key("data"), job_id, '{"n": 1}'),
    "a row without a blob": lambda hand, job_id: hand.client.hdel(hand.key("data"), job_id),
    "a row that is none": lambda hand, job_id: hand.client.hset(hand.key("rows"), job_id, "gone"),
    "a row with a strange end": lambda hand, job_id: hand.row(job_id, at=48, value=b"\0" + b"\0" * 16 + b"\xc1"),
    "a blob without a row": lambda hand, job_id: hand.client.hdel(hand.key("rows"), job_id),
}


@pytest.fixture
def driver(valkey_url: str) -> Iterator[RedisDriver]:
    with contextlib.closing(RedisDriver(valkey_url, namespace="spoilt")) as driver:
        driver.teardown()
        yield driver
        driver.teardown()


@pytest.fixture
def hand(valkey_url: str) -> Iterator[Hand]:
    with contextlib.closing(redis.Redis.from_url(valkey_url)) as client:
        yield Hand(client, "{spoilt}:")


@pytest.fixture
def later(valkey_url: str) -> Iterator[RedisDriver]:
    with contextlib.closing(RedisDriver(valkey_url, namespace="spoilt", time_offset=LATER_S)) as driver:
        yield driver


def look_at_all(driver: RedisDriver) -> None:
    """Every verb that looks."""
    ids = [job.id for job in driver.find(JobFilter()).jobs]
    jobs = driver.get(ids)
    shown = {each.id: each.state for each in driver.get_results(ids)}
    assert shown == {job.id: job.status for job in jobs}
    for state in JobState:
        driver.find(JobFilter(states=(state,)), chars_max=5)
    failed = driver.failed(chars_max=5).jobs
    driver.failed(queue="q")
    driver.get_failed([*ids, *(row.id for row in failed)])
    driver.failure_groups(chars_max=5)
    driver.failed_alike(UNREADABLE)
    driver.stats("q")
    driver.stats()
    driver.queues()
    driver.workers()
    driver.diagnose()
    driver.oldest_ended()
    driver.wait(["q"], 0)
    for job_id in ids:
        driver.in_front(job_id)


@pytest.mark.parametrize("spoil", SPOILING.values(), ids=SPOILING.keys())
def test_a_claim_sets_a_spoilt_job_aside_and_lends_its_neighbours(
    driver: RedisDriver, hand: Hand, spoil: Callable[[Hand, str], object]
) -> None:
    first, spoilt, last = fresh_ids(3)
    push(driver, *[new_job(id=job_id, data='{"n": 1}') for job_id in (first, spoilt, last)])
    spoil(hand, spoilt)
    look_at_all(driver)
    worker = join(driver)
    assert their_ids(lend(driver, worker, limit=10)) == [first, last]
    assert [job.id for job in driver.held(worker)] == [first, last]
    assert lend(driver, worker, limit=10) == []
    look_at_all(driver)
    (job,) = driver.find(JobFilter(states=(JobState.FAILED,))).jobs
    assert job.id == spoilt
    (failure,) = driver.failed_alike(UNREADABLE).jobs
    assert failure.job_id == spoilt
    assert "cannot be read" in failure.exception
    assert driver.stats("q").failed == 1


@pytest.mark.parametrize("spoil", SPOILING.values(), ids=SPOILING.keys())
def test_a_job_that_is_spoilt_while_it_runs_keeps_no_other_result_and_no_worker_from_its_place(
    driver: RedisDriver, later: RedisDriver, hand: Hand, spoil: Callable[[Hand, str], object]
) -> None:
    ids = push(driver, *[new_job() for _ in range(6)])
    first, second = join(driver), join(driver)
    claims = lend(driver, first, limit=4)
    driver.cancel([ids[0]])
    spoil(hand, ids[0])
    spoil(hand, ids[1])
    driver.heartbeat(first, {})
    verbs = (Verb.COMPLETE, Verb.COMPLETE, Verb.COMPLETE)
    driver.settle([settlement(claim, verb) for claim, verb in zip(claims[:3], verbs, strict=True)])
    assert job_of(driver, ids[2]).status is JobState.COMPLETED
    lend(driver, second, limit=1)
    spoil(hand, ids[4])
    look_at_all(driver)
    taken = {job.id for job in later.reclaim(100).jobs} | {job.id for job in later.reclaim(100).jobs}
    assert ids[3] in taken
    assert later.workers() == []
    look_at_all(later)


@pytest.mark.parametrize("spoil", SPOILING.values(), ids=SPOILING.keys())
def test_a_finished_job_that_is_spoilt_is_pruned_and_cleared_as_any_other(
    driver: RedisDriver, later: RedisDriver, hand: Hand, spoil: Callable[[Hand, str], object]
) -> None:
    for _ in range(2):
        push(driver, *[new_job() for _ in range(4)])
        claims = lend(driver, join(driver), limit=4)
        driver.settle(
            [settlement(claim, Verb.FAIL if place % 2 else Verb.COMPLETE) for place, claim in enumerate(claims)]
        )
        for claim in claims[:2]:
            spoil(hand, claim.id)
        look_at_all(driver)
        if not later.prune(completed_older_than=1.0, failed_older_than=1.0).has_more:
            assert later.stats().total == 0
        push(driver, new_job(), new_job())
        spoil(hand, driver.find(JobFilter()).jobs[0].id)
        assert driver.clear("q").has_more is False
        assert driver.stats().total == 0
        assert driver.find(JobFilter()).jobs == ()


def test_a_job_that_was_set_aside_runs_once_its_column_is_corrected(driver: RedisDriver, hand: Hand) -> None:
    (job_id,) = push(driver)
    hand.blob(job_id, place=3, value=BAD_TEXT)
    worker = join(driver)
    assert lend(driver, worker) == []
    (row,) = all_failed(driver)
    assert "data is b'\\xff\\xfe', not text" in row.exception
    hand.blob(job_id, place=3, value='{"n": 2}')
    assert driver.retry_failed([row.id]) == [RetryAnswer.REQUEUED]
    assert [claim.data for claim in lend(driver, worker)] == ['{"n": 2}']


def test_bytes_that_are_text_are_lent_as_text(driver: RedisDriver, hand: Hand) -> None:
    (job_id,) = push(driver)
    hand.blob(job_id, place=3, value=b'{"n": 3}')
    assert job_of(driver, job_id).data == '{"n": 3}'
    assert [claim.data for claim in lend(driver, join(driver))] == ['{"n": 3}']


def test_an_id_without_a_job_leaves_its_lane(driver: RedisDriver, hand: Hand) -> None:
    ghost, job_id = fresh_ids(2)
    push(driver, new_job(id=ghost), new_job(id=job_id))
    for name in ("rows", "data"):
        hand.client.hdel(hand.key(name), ghost)
    look_at_all(driver)
    worker = join(driver)
    assert their_ids(lend(driver, worker, limit=1)) == [job_id]
    assert hand.client.zcard(hand.key("lane:0:q")) == 0
    assert [job.id for job in driver.find(JobFilter()).jobs] == [job_id]
    assert driver.wait(["q"], 0) is False


def test_a_thousand_ids_without_jobs_hold_up_nothing(driver: RedisDriver, hand: Hand) -> None:
    push(driver)
    hand.client.zadd(hand.key("lane:0:q"), dict.fromkeys(fresh_ids(2_500), 1.0))
    worker = join(driver)
    lent = [claim for _ in range(5) for claim in lend(driver, worker, limit=1)]
    assert len(lent) == 1
    assert hand.client.zcard(hand.key("lane:0:q")) == 0


@pytest.mark.parametrize("is_running", [False, True])
def test_a_job_that_no_list_names_is_shown_as_unreadable_and_cancel_ends_it(
    driver: RedisDriver, hand: Hand, *, is_running: bool
) -> None:
    lost, other = fresh_ids(2)
    push(driver, new_job(id=lost))
    worker = join(driver)
    if is_running:
        lend(driver, worker)
        hand.client.srem(hand.key(f"held:{worker}"), lost)
    else:
        hand.client.zrem(hand.key("lane:0:q"), lost)
    push(driver, new_job(id=other))
    job = job_of(driver, lost)
    assert job.status is JobState.UNREADABLE
    assert is_unreadable(job)
    assert [job.id for job in driver.find(JobFilter(states=(JobState.UNREADABLE,))).jobs] == [lost]
    assert [job.id for job in driver.find(JobFilter(states=(JobState.PENDING, JobState.PROCESSING))).jobs] == [other]
    assert driver.cancel([lost]) == [CancelAnswer.CANCELLED]
    assert job_of(driver, lost).status is JobState.CANCELLED
    assert their_ids(lend(driver, worker)) == [other]


@pytest.mark.parametrize("state", [b"z", b"c"], ids=["unknown", "another"])
def test_a_job_in_another_state_than_its_lane_says_is_not_lent(driver: RedisDriver, hand: Hand, state: bytes) -> None:
    odd, other = fresh_ids(2)
    push(driver, new_job(id=odd), new_job(id=other))
    hand.row(odd, at=0, value=state)
    worker = join(driver)
    assert their_ids(lend(driver, worker)) == [other]
    assert lend(driver, worker) == []
    look_at_all(driver)
    if state == b"z":
        assert job_of(driver, odd).status is JobState.UNREADABLE
        assert "status is 'z'" in (job_of(driver, odd).reason or "")
        assert driver.cancel([odd]) == [CancelAnswer.CANCELLED]


@pytest.mark.parametrize("key", ["lane:0:q", "lanes:q", "bell:q", "ended:c:q"])
def test_a_key_of_another_type_spoils_its_own_queue_alone(driver: RedisDriver, hand: Hand, key: str) -> None:
    push(driver, new_job(), new_job("other"))
    hand.client.delete(hand.key(key))
    hand.client.set(hand.key(key), "mine")
    look_at_all(driver)
    assert {queue.name for queue in driver.queues()} == {"q", "other"}
    worker = join(driver)
    claims = driver.claim(worker, ["q", "other"], slots=9, limit=9)
    assert "other" in {claim.queue for claim in claims}
    driver.wait(["q", "other"], 0.1)  # ends
    driver.prune(completed_older_than=0.0)
    found = {finding.code: finding for finding in driver.diagnose()}["keys"]
    assert f"{{spoilt}}:{key}" in found.what


@pytest.mark.parametrize("key", ["lane:0:next", "lanes:next", "bell:next"])
def test_what_comes_next_in_a_queue_that_is_spoilt_keeps_no_result_from_being_stored(
    driver: RedisDriver, hand: Hand, key: str
) -> None:
    push(driver, new_job(), new_job())
    first, second = lend(driver, join(driver), limit=2)
    hand.client.set(hand.key(key), "mine")
    following = new_job("next")
    said = [replace(settlement(first, Verb.COMPLETE), result="1", then=(following,)), settlement(second, Verb.COMPLETE)]
    assert [answer.status for answer in driver.settle(said)] == [SettleStatus.APPLIED] * 2
    assert [each.result for each in driver.get_results([first.id, second.id])] == ["1", None]
    assert driver.stats("q").completed == 2
    is_lost = key.startswith("lane:")
    assert job_of(driver, following.id).status is (JobState.UNREADABLE if is_lost else JobState.PENDING)


def test_a_result_whose_row_is_spoilt_goes_with_its_job(driver: RedisDriver, later: RedisDriver, hand: Hand) -> None:
    for end in (lambda: later.prune(completed_older_than=1.0), lambda: driver.clear("q")):
        push(driver)
        (claim,) = lend(driver, join(driver))
        driver.settle([replace(settlement(claim, Verb.COMPLETE), result="1")])
        hand.client.hset(hand.key("rows"), claim.id, "gone")
        (shown,) = driver.get_results([claim.id])
        assert (shown.state, shown.result) == (JobState.UNREADABLE, None)
        assert "cannot be read" in (shown.reason or "")
        end()
        assert not hand.client.exists(hand.key("results"))


def test_a_result_that_is_no_text_spoils_no_other(driver: RedisDriver, hand: Hand) -> None:
    push(driver, new_job(), new_job())
    claims = lend(driver, join(driver), limit=2)
    driver.settle([replace(settlement(claim, Verb.COMPLETE), result="1") for claim in claims])
    hand.client.hset(hand.key("results"), claims[0].id, b"\xff")
    assert {each.id: each.result for each in driver.get_results(their_ids(claims))} == {
        claims[0].id: "\\xff",
        claims[1].id: "1",
    }
    hand.client.hdel(hand.key("results"), claims[0].id)
    assert [each.result for each in driver.get_results([claims[0].id])] == [None]


def test_a_push_into_a_lane_of_another_type_is_refused_whole(driver: RedisDriver, hand: Hand) -> None:
    hand.client.set(hand.key("lane:0:q"), "mine")
    job = new_job()
    with pytest.raises(ContractBroken, match="not protojobs's"):
        driver.enqueue([new_job("other"), job])
    assert driver.get([job.id]) == []
    assert driver.stats().total == 0
