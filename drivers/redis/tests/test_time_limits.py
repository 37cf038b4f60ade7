"""How long a verb may take when its caller waits no longer: to connect, and for an answer."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

import servers
from protojobs.clock import within
from protojobs.errors import StoreUnavailable
from protojobs.testing.conformance.steps import push
from protojobs_redis import RedisDriver

LIMIT_S = 0.4
IN_TIME_S = 1.4  # and some for a busy machine


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Takes connections, and says nothing."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


@contextlib.contextmanager
def given_up_in_time() -> Iterator[None]:
    began = time.monotonic()
    with pytest.raises(StoreUnavailable), within(LIMIT_S):
        yield
    assert time.monotonic() - began < IN_TIME_S


def test_the_first_connection_is_given_up(silent_port: int) -> None:
    with given_up_in_time():
        RedisDriver(f"redis://127.0.0.1:{silent_port}").now()


def test_threads_that_come_first_all_at_once_do_not_wait_one_after_the_other(silent_port: int) -> None:
    driver = RedisDriver(f"redis://127.0.0.1:{silent_port}")
    took: list[float] = []

    def ask() -> None:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable), within(LIMIT_S):
            driver.now()
        took.append(time.monotonic() - began)

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(took) == 8
    assert max(took) < IN_TIME_S


def test_an_answer_is_given_up_and_the_driver_goes_on(start: Callable[..., servers.Server]) -> None:
    server = start()
    driver = RedisDriver(server.url)
    push(driver)
    server.freeze()
    try:
        with given_up_in_time():
            push(driver)
    finally:
        server.thaw()
    push(driver)
    assert driver.stats().pending in (2, 3)  # the one in between may have been stored after all
    driver.close()
