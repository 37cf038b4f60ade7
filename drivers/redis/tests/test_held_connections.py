"""The connections that scripts go over: how answers are read, and when a connection is not used again."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
import redis
from redis.exceptions import ConnectionError, InvalidResponse, NoScriptError, ReadOnlyError, ResponseError

import servers
from protojobs.testing.conformance.steps import push
from protojobs_redis import RedisDriver
from protojobs_redis.connecting.bounded import BoundedConnection, connection_class

LIMIT_S = 10.0
Connect = Callable[..., BoundedConnection]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """`connect(b"$3\\r\\nabc\\r\\n", step=1)`: a connection to somebody who says that, so many bytes at a time."""
    with contextlib.ExitStack() as stack:

        def to(answer: bytes, *, step: int = 1 << 20) -> BoundedConnection:
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            server.settimeout(LIMIT_S)

            def speak() -> None:
                with contextlib.suppress(OSError):
                    other, _ = server.accept()
                    with other:
                        other.settimeout(LIMIT_S)
                        other.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        other.recv(1000)
                        for start in range(0, len(answer), step):
                            other.sendall(answer[start : start + step])

            thread = threading.Thread(target=speak, daemon=True)
            thread.start()
            stack.callback(thread.join, LIMIT_S)
            options = {"socket_timeout": LIMIT_S, "protocol": 2, "driver_info": None}
            connection = connection_class("redis://")(host="127.0.0.1", port=server.getsockname()[1], **options)
            stack.callback(connection.disconnect)
            return connection

        yield to


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"$5\r\na\r\nbc\r\n", b"a\r\nbc"),
        (b"$0\r\n\r\n", b""),
        (b"$-1\r\n", None),
        (b":-42\r\n", -42),
        (b"+OK\r\n", b"OK"),
    ],
    ids=["text", "no text", "nothing", "number", "word"],
)
def test_an_answer_is_whole_in_however_many_pieces_it_comes(
    connect: Connect, said: bytes, answer: object, step: int
) -> None:
    assert connect(said, step=step).ask(b"whatever") == answer


def test_a_long_answer_is_whole(connect: Connect) -> None:
    long = bytes(range(256)) * 2_000
    assert connect(b"$%d\r\n%b\r\n" % (len(long), long), step=10_000).ask(b"whatever") == long


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (b"-NOSCRIPT No matching script\r\n", NoScriptError),
        (b"-READONLY a replica\r\n", ReadOnlyError),
        (b"-OOM full\r\n", ResponseError),
    ],
)
def test_a_refusal_is_raised_in_its_own_words_and_the_connection_is_kept(
    connect: Connect, said: bytes, kind: type[Exception]
) -> None:
    connection = connect(said)
    with pytest.raises(kind) as caught:
        connection.ask(b"whatever")
    assert str(caught.value) == said[1:-2].decode()
    assert connection.is_connected


@pytest.mark.parametrize("said", [b"", b"$5", b"$5\r\nab"], ids=["at once", "in its head", "in its text"])
def test_an_answer_that_breaks_off_closes_the_connection(connect: Connect, said: bytes) -> None:
    connection = connect(said)
    with pytest.raises(ConnectionError):
        connection.ask(b"whatever")
    assert not connection.is_connected


@pytest.mark.parametrize("said", [b"*1\r\n:1\r\n", b":1\r\n:2\r\n"], ids=["a list", "two"])
def test_a_strange_answer_closes_the_connection(connect: Connect, said: bytes) -> None:
    connection = connect(said)
    with pytest.raises(InvalidResponse):
        connection.ask(b"whatever")
    assert not connection.is_connected


def test_a_connection_that_the_server_closed_is_not_used_again(start: Callable[..., servers.Server]) -> None:
    server = start()
    driver = RedisDriver(server.url)
    push(driver)
    with contextlib.closing(redis.Redis.from_url(server.url)) as client:
        assert client.execute_command("CLIENT KILL", "TYPE", "normal", "SKIPME", "yes") >= 1
    push(driver)
    server.restart()
    push(driver)
    assert driver.stats().pending == 3
    driver.close()


def test_threads_have_a_connection_each_and_give_it_back(start: Callable[..., servers.Server]) -> None:
    server = start()
    driver = RedisDriver(f"{server.url}?max_connections=8")
    threads = [threading.Thread(target=lambda: [push(driver) for _ in range(50)], daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert driver.stats().pending == 400
    with contextlib.closing(redis.Redis.from_url(server.url)) as client:
        assert len(client.client_list()) <= 9
        driver.close()
        servers.until(lambda: len(client.client_list()) == 1, "connections stay open", limit=LIMIT_S)
