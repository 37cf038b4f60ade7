"""A forked child whose threads all come first at once: none uses a connection of the parent's.

Two processes on one connection read each other's answers. The fork is played: to the driver, all that it holds is
another process's, and its second thread comes at the worst moment, in the middle of what the first does about that.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from protojobs.testing.conformance.steps import push
from protojobs_redis import RedisDriver, waiting
from protojobs_redis.connecting import connections

LIMIT_S = 30.0


@pytest.fixture
def driver(request: pytest.FixtureRequest, valkey_url: str) -> Iterator[RedisDriver]:
    driver = RedisDriver(valkey_url, namespace=request.node.name[:100])
    driver.teardown()
    push(driver)
    assert driver.wait(["q"], 0) is True
    yield driver
    driver.teardown()
    driver.close()


def forked(driver: RedisDriver) -> None:
    """Now all that it has is the parent's."""
    driver._connections._pid = driver._waiter._pid = 0


class Meanwhile:
    """Called in the middle of something: the first time, lets another thread act, from beginning to end."""

    def __init__(self, make: Callable[[], object], act: Callable[[], object]) -> None:
        self.make, self.act = make, act
        self.answers: list[object] = []
        self._is_over = False

    def __call__(self) -> object:
        if not self._is_over:
            self._is_over = True
            thread = threading.Thread(target=lambda: self.answers.append(self.act()), daemon=True)
            thread.start()
            thread.join(LIMIT_S)
        return self.make()


def test_a_second_thread_sends_nothing_over_the_parents_connections(
    driver: RedisDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    parents = driver._connections._held
    assert parents is not None
    meanwhile = Meanwhile(threading.Lock, lambda: driver.stats().pending)
    monkeypatch.setattr(connections, "threading", SimpleNamespace(Lock=meanwhile))
    monkeypatch.setattr(parents, "ask", lambda _command: pytest.fail("the parent's"))
    forked(driver)
    assert driver.stats().pending == 1
    assert meanwhile.answers == [1]


def test_a_second_thread_waits_at_no_connection_of_the_parents(
    driver: RedisDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    parents = [held.connection for held in driver._waiter._idle]
    assert parents
    for connection in parents:
        monkeypatch.setattr(connection, "send_command", lambda *_command: pytest.fail("the parent's"))
    meanwhile = Meanwhile(deque, lambda: driver.wait(["q"], 0))
    monkeypatch.setattr(waiting, "deque", meanwhile)
    forked(driver)
    assert driver.wait(["q"], 0) is True
    assert meanwhile.answers == [True]
