"""How results are kept: apart from rows, gone with their jobs, read in bounded steps; and the last line of an error."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
import redis
from msgspec.structs import replace

import servers
from protojobs.port.lifecycle import Verb
from protojobs.port.records import BATCH_BYTES_MAX, ClaimedJob, NewJob, Settlement
from protojobs.port.results import ERROR_CHARS_MAX, RESULT_BYTES_MAX, last_line
from protojobs.testing.conformance.steps import fresh_ids, join, lend, new_job, push, settle, settlement, their_ids
from protojobs_redis import RedisDriver

PLAIN_ROW_BYTES = 46 + len("q") + 1 + 16  # as scripts/prelude.lua has it: no holder, two times, and no more


@pytest.fixture
def server(start: Callable[..., servers.Server]) -> servers.Server:
    """A server of its own, so that all that is counted there is ours."""
    return start()


@pytest.fixture
def driver(server: servers.Server) -> Iterator[RedisDriver]:
    with contextlib.closing(RedisDriver(server.url)) as driver:
        yield driver


@pytest.fixture
def client(server: servers.Server) -> Iterator[redis.Redis]:
    with contextlib.closing(redis.Redis.from_url(server.url)) as client:
        yield client


def carrying(claim: ClaimedJob, result: str | None = None, then: tuple[NewJob, ...] = ()) -> Settlement:
    return replace(settlement(claim, Verb.COMPLETE), result=result, then=then)


def lent(driver: RedisDriver, count: int) -> list[ClaimedJob]:
    push(driver, *[new_job() for _ in range(count)])
    return lend(driver, join(driver), limit=count)


def key(driver: RedisDriver, name: str) -> str:
    return f"{{{driver.namespace}}}:{name}"


def test_a_job_without_a_result_is_kept_as_it_was_and_one_that_only_asks_for_another_too(
    driver: RedisDriver, client: redis.Redis
) -> None:
    plain, asking = lent(driver, 2)
    driver.settle([settlement(plain, Verb.COMPLETE)])
    driver.settle([carrying(asking, then=(new_job("next"),))])
    rows = [client.hget(key(driver, "rows"), claim.id) for claim in (plain, asking)]
    assert [len(row) for row in rows] == [PLAIN_ROW_BYTES] * 2
    assert not client.exists(key(driver, "results"))


@pytest.mark.parametrize("how", ["clear", "prune"])
def test_a_result_goes_with_its_job(driver: RedisDriver, client: redis.Redis, server: servers.Server, how: str) -> None:
    claims = lent(driver, 3)
    driver.settle([carrying(claim, result="1") for claim in claims])
    assert sorted(client.hkeys(key(driver, "results"))) == sorted(claim.id.encode() for claim in claims)
    if how == "clear":
        assert driver.clear("q").completed == 3
    else:
        with contextlib.closing(RedisDriver(server.url, time_offset=100.0)) as later:
            assert later.prune(completed_older_than=10.0).completed == 3
    assert not client.exists(key(driver, "results"))


def test_a_result_that_an_older_release_has_left_behind_is_shown_of_no_other_run(
    driver: RedisDriver, client: redis.Redis
) -> None:
    """A release that knows no results deletes jobs and leaves theirs, as do hands."""
    (claim,) = lent(driver, 1)
    driver.settle([carrying(claim, result='"old"')])
    kept = client.hgetall(key(driver, "results"))
    driver.clear("q")
    client.hset(key(driver, "results"), mapping=kept)
    push(driver, new_job(id=claim.id))
    assert [each.result for each in driver.get_results([claim.id])] == [None]
    (again,) = lend(driver, join(driver))
    settle(driver, again, Verb.COMPLETE)
    assert [each.result for each in driver.get_results([claim.id])] == [None]


@pytest.mark.parametrize("what", ["results", "errors"])
def test_long_results_and_long_errors_are_read_a_few_megabytes_at_a_time(
    driver: RedisDriver, client: redis.Redis, what: str
) -> None:
    claims = lent(driver, 300)
    long = '"' + "x" * (RESULT_BYTES_MAX - 2) + '"'
    for first in range(0, 300, 100):
        some = claims[first : first + 100]
        if what == "results":
            driver.settle([carrying(claim, result=long) for claim in some])
        else:
            driver.settle([replace(settlement(claim, Verb.FAIL), error=long) for claim in some])
    client.config_resetstat()
    shown = driver.get_results(their_ids(claims))
    asked = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert len(shown) == 300
    assert {each.result for each in shown} == ({long} if what == "results" else {None})
    assert {each.error for each in shown} == ({""} if what == "results" else {long[:ERROR_CHARS_MAX]})
    few = BATCH_BYTES_MAX // RESULT_BYTES_MAX
    assert asked in (-(-300 // few), -(-300 // (few + 1)))


def test_to_look_at_jobs_that_wait_brings_no_payload(driver: RedisDriver, client: redis.Redis) -> None:
    payload = '"' + "x" * 1_000 + '"'
    ids = push(driver, *[new_job(id=job_id, data=payload) for job_id in fresh_ids(1_000)])
    driver.get_results(ids[:1])  # the server knows the script
    client.config_resetstat()
    assert len(driver.get_results(ids)) == 1_000
    stats = client.info("commandstats")
    assert stats["cmdstat_evalsha"]["calls"] == 1
    assert stats["cmdstat_hget"]["calls"] == 1_000
    assert client.info("stats")["total_net_output_bytes"] < 400_000


ENDS = ("\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029")
SPACES = (" ", "\t", "\x1f", "\xa0", "\u1680", "\u2000", "\u2007", "\u200a", "\u202f", "\u205f", "\u3000")
ERRORS = (
    "",
    "\n\n",
    "one line",
    "漢字",
    "\x01",
    "\x7f\n",
    "a\u200b",  # no space to Python, as the next one
    "a\n\u180e",
    *[f"Traceback\n  x{end}ValueError: ä{end}{space}{end}" for end in ENDS for space in SPACES],
    *[f"first\n{space} second {space}" for space in SPACES],
    "first\n" + "".join(SPACES),
    *[f"{end}{'🎈' * (ERROR_CHARS_MAX + extra)}{end}" for end in ENDS for extra in (-1, 0, 1)],
)


def test_the_last_line_of_an_error_is_the_one_that_python_finds(driver: RedisDriver) -> None:
    claims = dict(zip(ERRORS, lent(driver, len(ERRORS)), strict=True))
    driver.settle([replace(settlement(claim, Verb.FAIL), error=error) for error, claim in claims.items()])
    shown = {each.id: each.error for each in driver.get_results(their_ids(list(claims.values())))}
    assert {error: shown[claim.id] for error, claim in claims.items()} == {error: last_line(error) for error in ERRORS}
