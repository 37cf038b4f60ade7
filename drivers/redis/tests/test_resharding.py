"""A cluster moves the namespace to another node: nothing is done while its keys are on two, and nothing is lost."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
import redis

from protojobs.errors import StoreUnavailable
from protojobs.port.lifecycle import Verb
from protojobs.port.records import NewJob, SettleStatus
from protojobs.testing.conformance.steps import join, lend, new_job, push, settlement
from protojobs_redis import RedisDriver

pytestmark = pytest.mark.slow  # run by `python3 dev.py test-slow`

NAMESPACE = "moving-house"
SOURCE, TARGET = 0, 1


class Move:
    """The slot of the namespace, on its way from one node of two to the other."""

    def __init__(self, urls: list[str], clients: list[redis.Redis]) -> None:
        self.urls, self.clients = urls, clients
        self.ids = [client.execute_command("CLUSTER MYID").decode() for client in clients]
        self.slot = clients[SOURCE].execute_command("CLUSTER KEYSLOT", f"{{{NAMESPACE}}}:")

    def begin(self) -> None:
        """As every tool for moving slots begins: from now on the source sends on whoever asks for a missing key."""
        self.clients[TARGET].execute_command("CLUSTER SETSLOT", self.slot, "IMPORTING", self.ids[SOURCE])
        self.clients[SOURCE].execute_command("CLUSTER SETSLOT", self.slot, "MIGRATING", self.ids[TARGET])

    def move_keys(self, count: int) -> None:
        """Bring so many keys to the other side."""
        keys = self.clients[SOURCE].execute_command("CLUSTER GETKEYSINSLOT", self.slot, count)
        host, port = self.urls[TARGET].removeprefix("redis://").split(":")
        if keys:
            self.clients[SOURCE].execute_command("MIGRATE", host, port, "", 0, 5000, "KEYS", *keys)

    def end(self) -> None:
        """All of it has moved."""
        self.move_keys(1_000)
        for place in (TARGET, SOURCE):
            self.clients[place].execute_command("CLUSTER SETSLOT", self.slot, "NODE", self.ids[TARGET])

    def keys_at(self, place: int) -> int:
        """How many keys of the namespace are there."""
        return self.clients[place].execute_command("CLUSTER COUNTKEYSINSLOT", self.slot)


@pytest.fixture(params=[1, 2], ids=["to a node without slots", "to a node with slots"])
def move(request: pytest.FixtureRequest, start_cluster: Callable[..., list[str]]) -> Iterator[Move]:
    """A cluster of two nodes; the namespace is on the first."""
    urls = start_cluster(2, owners=request.param)
    with contextlib.ExitStack() as stack:
        yield Move(urls, [stack.enter_context(contextlib.closing(redis.Redis.from_url(url))) for url in urls])


def refused(driver: RedisDriver, worker: str, job: NewJob) -> None:
    """Whatever is asked for, is for later."""
    verbs: list[Callable[[], object]] = [
        lambda: driver.enqueue([job]),
        lambda: driver.heartbeat(worker, {}),
        lambda: driver.claim(worker, ["q"], slots=1, limit=1),
        lambda: driver.wait(["q"], 0.1),
        driver.setup,
        driver.stats,
        driver.now,
    ]
    for verb in verbs:
        with pytest.raises(StoreUnavailable, match="moving"):
            verb()


@pytest.mark.parametrize("options", ["", "?wait_replicas=1&wait_timeout=0.1"], ids=["", "waiting for replicas"])
def test_while_the_namespace_moves_nothing_is_done_and_then_all_goes_on(move: Move, options: str) -> None:
    driver, late = (RedisDriver(move.urls[SOURCE] + options, namespace=NAMESPACE) for _ in range(2))
    plain = RedisDriver(move.urls[SOURCE], namespace=NAMESPACE)
    worker, job = join(plain), new_job()
    push(plain, *[new_job() for _ in range(10)])
    claims = lend(plain, worker, limit=3)
    assert plain.wait(["q"], 0) is True

    move.begin()
    refused(driver, worker, job)
    assert move.keys_at(TARGET) == 0
    move.move_keys(4)
    refused(driver, worker, job)
    refused(late, worker, job)
    with pytest.raises(StoreUnavailable):
        driver.settle([settlement(claim, Verb.COMPLETE) for claim in claims])
    assert move.keys_at(TARGET) == 4
    move.end()
    assert move.keys_at(SOURCE) == 0

    with pytest.raises(StoreUnavailable, match="another node now"):
        plain.wait(["q"], 0)
    assert plain.wait(["q"], 0) is True
    plain.heartbeat(worker, {})
    answers = plain.settle([settlement(claim, Verb.COMPLETE) for claim in claims])
    assert [answer.status for answer in answers] == [SettleStatus.APPLIED] * 3
    plain.enqueue([job])
    assert (plain.stats().completed, plain.stats().pending) == (3, 8)
    for one in (plain, driver, late):
        one.close()
