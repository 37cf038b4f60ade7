"""Connections that a firewall has forgotten while they were idle: new ones work, those are black holes for ever."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest

from protojobs.errors import StoreUnavailable
from protojobs.testing.conformance.steps import push
from protojobs_redis import RedisDriver
from protojobs_redis.connecting.held_connections import HeldConnection

THREADS = 50
ANSWER_S = 1.0  # instead of five: what is counted here are rounds, not seconds
JOIN_S = 30.0


class Firewall:
    """Passes bytes on; `forget` makes it swallow all that comes over the connections which are open then."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._generation = 0
        self._sockets: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def forget(self) -> None:
        self._generation += 1

    def close(self) -> None:
        for each in (self._listening, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [client, server]
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pass, args=(source, sink, self._generation), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, generation: int) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if generation == self._generation:
                    sink.sendall(data)
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def firewall(valkey_url: str) -> Iterator[Firewall]:
    with contextlib.closing(Firewall(urlsplit(valkey_url).port or 0)) as firewall:
        yield firewall


@pytest.fixture
def connect(firewall: Firewall) -> Iterator[Callable[..., RedisDriver]]:
    """`connect("wait_replicas=0")`: a driver that reaches the server by way of the firewall."""
    with contextlib.ExitStack() as stack:

        def to(options: str = "") -> RedisDriver:
            url = f"redis://127.0.0.1:{firewall.port}/0?namespace=silent&socket_timeout={ANSWER_S}&{options}"
            driver = stack.enter_context(contextlib.closing(RedisDriver(url)))
            driver.teardown()
            return driver

        yield to


def at_once(what: Callable[[], object], count: int) -> None:
    threads = [threading.Thread(target=what, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(JOIN_S)
        assert not thread.is_alive()


def open_connections(driver: RedisDriver, count: int) -> None:
    """So many at once: each of the threads waits until all have one."""
    together = threading.Barrier(count)

    def hold() -> None:
        held = driver._connections._held
        assert held is not None
        connection = held._take()
        together.wait(JOIN_S)
        held._idle.append(connection)

    driver.now()
    at_once(hold, count)


def idle_connections(driver: RedisDriver) -> list[HeldConnection]:
    held = driver._connections._held
    assert held is not None
    return list(held._idle)


def how_it_went(driver: RedisDriver, count: int) -> list[str]:
    went: list[str] = []
    for _ in range(count):
        try:
            push(driver)
            went.append("stored")
        except StoreUnavailable:
            went.append("unavailable")
    return went


def test_of_fifty_connections_that_a_firewall_forgot_one_push_pays(
    connect: Callable[..., RedisDriver], firewall: Firewall
) -> None:
    driver = connect()
    open_connections(driver, THREADS)
    firewall.forget()
    assert how_it_went(driver, 5) == ["unavailable", *["stored"] * 4]


def test_a_connection_that_was_idle_for_long_is_asked_first_so_that_the_push_is_only_late(
    connect: Callable[..., RedisDriver], firewall: Firewall
) -> None:
    driver = connect()
    open_connections(driver, 5)
    for connection in idle_connections(driver):
        connection.next_health_check = 0.0
    firewall.forget()
    assert how_it_went(driver, 2) == ["stored", "stored"]


def test_a_connection_that_was_idle_for_long_and_works_is_used_on(connect: Callable[..., RedisDriver]) -> None:
    driver = connect()
    push(driver)
    (connection,) = idle_connections(driver)
    assert connection.next_health_check > time.monotonic()
    connection.next_health_check = 0.0
    push(driver)
    assert idle_connections(driver) == [connection]
    assert connection.next_health_check > time.monotonic()
    assert driver.stats().pending == 2


def test_the_connections_that_wait_for_jobs_share_the_fate_of_the_others(
    connect: Callable[..., RedisDriver], firewall: Firewall
) -> None:
    driver = connect()
    assert driver.wait(["q"], 0) is False
    firewall.forget()
    assert how_it_went(driver, 2) == ["unavailable", "stored"]
    assert driver.wait(["q"], 0.1) is True


def test_the_connections_of_the_librarys_pool_share_it_too(
    connect: Callable[..., RedisDriver], firewall: Firewall
) -> None:
    """Those of clusters, of Sentinel's primaries, and of writes that wait for replicas."""
    driver = connect()
    pool = driver._connections.server().connection_pool
    held = [pool.get_connection() for _ in range(5)]
    for connection in held:
        pool.release(connection)
    firewall.forget()
    with pytest.raises(StoreUnavailable):
        driver.diagnose()
    assert [connection.is_connected for connection in held] == [False] * 5


def test_the_kernel_looks_after_idle_connections(valkey_url: str) -> None:
    with contextlib.closing(RedisDriver(valkey_url, namespace="silent")) as driver:
        connection = driver._connections.new_connection()
        connection.connect()
        opened: socket.socket = connection._sock  # type: ignore[attr-defined]
        assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        for name, value in (
            ("TCP_KEEPIDLE", 5),
            ("TCP_KEEPINTVL", 2),
            ("TCP_KEEPCNT", 3),
            ("TCP_USER_TIMEOUT", 11_000),
        ):
            if hasattr(socket, name):
                assert opened.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) == value
        connection.disconnect()
