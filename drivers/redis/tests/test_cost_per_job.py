"""What jobs cost, counted where noise cannot move it: commands in the server, round trips, and calls of Python."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

import pytest
import redis
from msgspec.structs import replace

import servers
from protojobs.clock import SYSTEM_CLOCK
from protojobs.port.lifecycle import Verb
from protojobs.port.records import BATCH_BYTES_MAX, ClaimedJob, Settlement
from protojobs.testing.conformance.steps import join, lend, new_job, push, settlement
from protojobs_redis import RedisDriver
from protojobs_redis.connecting import bounded

# To leave Lua for a command is what costs a script most. So what there is to read and to write for a batch
# takes a handful of commands, however many jobs there are: time, lease, pause, lanes of the queue, due jobs of
# the lane, rows and blobs of the claimed, rows of the settled; out of the lane, out of and into what the worker holds,
# rows twice, the ended, the running, and the bell for the next worker.
TURN_COMMANDS_MAX = 18
PUSH_COMMANDS_MAX = 12  # 10 in fact, and 2 more for the first job of a lane
# Of Python functions, in whatever module, for each job. A batch is decoded and encoded by msgspec in one call.
TURN_CALLS_MAX = 0.5  # for a job, settled and claimed: all of them are for the turn
BULK_CALLS_MAX = 4.5  # for a job in a batch: its small part, its due time, its blob, its word on the wire
PUSH_CALLS_MAX = 45  # for a push of one

BATCH = 200


@pytest.fixture
def url(start: Callable[..., servers.Server]) -> str:
    """A server of its own, so that all that is counted there is ours."""
    return start().url


@pytest.fixture
def driver(url: str) -> Iterator[RedisDriver]:
    driver = RedisDriver(url)
    push(driver)  # connects, and has the server know the scripts
    worker = join(driver)
    for verb in (Verb.RETRY, Verb.COMPLETE):
        (claim,) = driver.claim(worker, ["q"], slots=1, limit=1)
        driver.settle([settlement(claim, verb)])
    yield driver
    driver.close()


@contextlib.contextmanager
def commands(url: str) -> Iterator[Counter[str]]:
    """How often which command runs in the block, scripts' own ones included."""
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        client.config_resetstat()
        found: Counter[str] = Counter()
        yield found
        stats = client.info("commandstats")
    for name, numbers in stats.items():
        if name not in ("cmdstat_info", "cmdstat_config|resetstat"):
            found[name.removeprefix("cmdstat_")] = numbers["calls"]


class Calls:
    """Counts the calls of Python functions in the block, but for those that are not the driver's doing.

    A collection of garbage calls the finalizers of whatever earlier tests left behind; and an answer comes in as many
    pieces as a busy machine cuts it into.
    """

    total = 0

    def __enter__(self) -> Calls:
        gc.collect()
        gc.disable()
        sys.setprofile(self._seen)
        return self

    def __exit__(self, *_error: object) -> None:
        sys.setprofile(None)
        gc.enable()

    def _seen(self, frame: FrameType, what: str, _argument: object) -> None:
        self.total += what == "call" and frame.f_code is not bounded._more.__code__


def completions(claims: list[ClaimedJob]) -> list[Settlement]:
    return [settlement(claim, Verb.COMPLETE) for claim in claims]


@pytest.mark.parametrize("batch", [20, BATCH])
def test_a_turn_is_one_round_trip_and_as_many_commands_for_a_large_batch_as_for_a_small_one(
    driver: RedisDriver, url: str, batch: int
) -> None:
    push(driver, *[new_job() for _ in range(3 * batch)])
    worker = join(driver)
    said = completions(driver.claim(worker, ["q"], slots=batch, limit=batch))
    with commands(url) as counted:
        reply = driver.settle_and_claim(worker, said, ["q"], slots=batch, limit=batch)
    assert (len(reply.settled), len(reply.claimed)) == (batch, batch)
    assert counted.pop("evalsha") == 1
    assert 0 < counted.total() <= TURN_COMMANDS_MAX, counted


def test_a_push_is_one_round_trip_and_few_commands(driver: RedisDriver, url: str) -> None:
    push(driver)
    with commands(url) as counted:
        push(driver)
    assert counted.pop("evalsha") == 1
    assert 0 < counted.total() <= PUSH_COMMANDS_MAX, counted


def until_one_is_blocked(client: redis.Redis) -> None:
    """Return when a client waits in a command that blocks; at most ten seconds."""
    ends_at = SYSTEM_CLOCK.monotonic() + 10
    while client.info("clients")["blocked_clients"] != 1:
        assert SYSTEM_CLOCK.monotonic() < ends_at, "nobody waits"
        SYSTEM_CLOCK.sleep(0.005)


def test_between_a_push_and_the_claim_of_an_idle_worker_the_server_is_asked_nothing(
    driver: RedisDriver, url: str
) -> None:
    worker = join(driver)
    with ThreadPoolExecutor(1) as pool, contextlib.closing(redis.Redis.from_url(url)) as client:
        is_due = pool.submit(driver.wait, ["idle"], 20)
        until_one_is_blocked(client)
        with commands(url) as counted:
            push(driver, new_job("idle"))
            assert is_due.result(20)
            assert len(driver.claim(worker, ["idle"], slots=1, limit=1)) == 1
    assert counted["evalsha"] == 2  # the push, and the claim
    assert not {"ping", "eval", "hello", "client|setinfo"} & counted.keys()


def test_many_pushed_at_once_are_one_round_trip_and_few_commands(driver: RedisDriver, url: str) -> None:
    jobs = [new_job() for _ in range(1_000)]
    with commands(url) as counted:
        push(driver, *jobs)
    assert counted.pop("evalsha") == 1
    # The arguments of a command are limited by Lua's stack: of those four that take two for each job there are two.
    assert 0 < counted.total() <= PUSH_COMMANDS_MAX + 4, counted


def test_other_settlements_cost_the_batch_and_not_each_job_a_command(driver: RedisDriver, url: str) -> None:
    push(driver, *[new_job(max_retries=9) for _ in range(2 * BATCH)])
    worker = join(driver)
    claims = driver.claim(worker, ["q"], slots=BATCH, limit=BATCH)
    said = [settlement(claim, Verb.COMPLETE if place % 2 else Verb.RETRY) for place, claim in enumerate(claims)]
    with commands(url) as counted:
        reply = driver.settle_and_claim(worker, said, ["q"], slots=BATCH, limit=BATCH)
    assert [settled.id for settled in reply.settled] == [claim.id for claim in claims]
    assert counted.pop("evalsha") == 1
    assert 0 < counted.total() <= 2 * TURN_COMMANDS_MAX, counted


def failed_with(driver: RedisDriver, traceback: str, count: int) -> None:
    push(driver, *[new_job() for _ in range(count)])
    claims = lend(driver, join(driver), limit=count)
    for first in range(0, count, 100):
        said = [settlement(claim, Verb.FAIL) for claim in claims[first : first + 100]]
        driver.settle([replace(one, error=traceback) for one in said])


def test_a_page_of_failures_reads_what_it_shows(driver: RedisDriver, url: str) -> None:
    failed_with(driver, "boom", 200)
    with commands(url) as counted:
        assert len(driver.failed(limit=10).jobs) == 10
    assert counted["hmget"] == 0
    assert counted["hget"] == 3 * 10  # its row of failed_jobs, its row and its blob


def test_long_tracebacks_are_read_a_few_megabytes_at_a_time(driver: RedisDriver, url: str) -> None:
    failed_with(driver, "x" * 65_536, 300)
    few = BATCH_BYTES_MAX // 65_536
    with commands(url) as counted:
        assert driver.failed(queue="another").jobs == ()
    assert counted["evalsha"] == -(-300 // few)
    with commands(url) as counted:
        found = driver.failed(limit=300, chars_max=100).jobs
    assert [len(failed.exception) for failed in found] == [100] * 300
    assert counted["evalsha"] == -(-300 // few)
    ids = [failed.id for failed in found]
    with commands(url) as counted:
        assert len(driver.get_failed(ids)) == 300
    assert counted["hmget"] < 10
    assert counted["hget"] == 3 * 300


def test_the_client_calls_few_functions(driver: RedisDriver) -> None:
    jobs = [new_job() for _ in range(2 * BATCH)]
    with Calls() as bulk:
        driver.enqueue(jobs)
    worker = join(driver)
    claims = driver.claim(worker, ["q"], slots=BATCH, limit=BATCH)
    said = completions(claims)
    with Calls() as turn:
        driver.settle_and_claim(worker, said, ["q"], slots=BATCH, limit=BATCH)
    one = [new_job()]
    with Calls() as single:
        driver.enqueue(one)
    assert bulk.total / len(jobs) <= BULK_CALLS_MAX
    assert turn.total / BATCH <= TURN_CALLS_MAX
    assert single.total <= PUSH_CALLS_MAX
