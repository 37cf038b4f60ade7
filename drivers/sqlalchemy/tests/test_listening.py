"""PostgreSQL's notifications are heard: in a process with many open files, and after whatever may go wrong."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest

import servers
from protojobs_sqlalchemy.postgresql import listener as listening
from protojobs_sqlalchemy.postgresql.listener import CHANNEL, Listener
from protojobs_sqlalchemy.waking.threads import Wakeup

FILES = 1_100  # select() knows no file number above 1,023
LIMIT_S = 30.0

Connection = psycopg.Connection[tuple[object, ...]]


@pytest.fixture
def many_open_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4 * FILES, hard), hard))
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(FILES)]
    assert max(held) > 1_023
    yield
    for number in held:
        os.close(number)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def connect(postgresql_url: str) -> Callable[[], Connection]:
    return lambda: psycopg.connect(servers.plain(postgresql_url), autocommit=True, connect_timeout=10)


def hears(wakeup: Wakeup, connect: Callable[[], Connection]) -> bool:
    """Whether one of the notifications that are sent until then rings the wakeup."""
    ends = time.monotonic() + LIMIT_S
    with connect() as other:
        while time.monotonic() < ends:
            mark = wakeup.mark()
            other.execute("SELECT pg_notify(%s, 'q')", (CHANNEL,))
            if wakeup.wait(mark, ["q"], 0.2):
                return True
    return False


@pytest.mark.usefixtures("many_open_files")
def test_a_process_with_many_open_files_listens_on_one_connection(connect: Callable[[], Connection]) -> None:
    opened: list[int] = []

    def counted() -> Connection:
        conn = connect()
        opened.append(conn.fileno())
        return conn

    wakeup = Wakeup()
    listener = Listener(wakeup, counted)
    listener.want()
    for _ in range(3):
        assert hears(wakeup, connect)
        listener.want()
    listener.close()
    assert len(opened) == 1
    assert opened[0] > 1_023


def test_whatever_goes_wrong_it_pauses_and_listens_again(
    connect: Callable[[], Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_RETRY_S", 0.01)
    mistakes: list[Exception] = [ValueError("a mistake"), OSError("no network"), psycopg.OperationalError("no server")]

    def flawed() -> Connection:
        if mistakes:
            raise mistakes.pop()
        return connect()

    wakeup = Wakeup()
    listener = Listener(wakeup, flawed)
    listener.want()
    thread = listener._thread
    assert hears(wakeup, connect)
    assert listener._thread is thread
    assert mistakes == []
    listener.close()
    assert thread is not None
    assert not thread.is_alive()


def test_one_that_cannot_connect_is_closed_at_once() -> None:
    def refuse() -> Connection:
        raise OSError("no network")

    listener = Listener(Wakeup(), refuse)
    listener.want()
    thread = listener._thread
    listener.close()
    assert thread is not None
    assert not thread.is_alive()
