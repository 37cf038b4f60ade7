"""Processes of one machine wake each other: who is woken, who is not, and that nobody depends on it."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from protojobs.clock import SYSTEM_CLOCK
from protojobs.entropy import fresh_id
from protojobs_sqlalchemy import SQLAlchemyDriver
from protojobs_sqlalchemy.mariadb import waiting as watching
from protojobs_sqlalchemy.sqlite import dialect as sqlite
from protojobs_sqlalchemy.waking import processes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no such socket, and workers poll")

LONG_S = 30.0
PUSH = """
import sys
from protojobs.port.records import NewJob
from protojobs.entropy import fresh_id
from protojobs_sqlalchemy import SQLAlchemyDriver
driver = SQLAlchemyDriver(sys.argv[1])
driver.enqueue([NewJob(id=fresh_id(), queue=sys.argv[2], job_name="n", job_class="c", data="{}")])
driver.close()
"""


@pytest.fixture
def store() -> str:
    """A name that nobody else uses."""
    return f"test/{fresh_id()}"


@pytest.fixture
def open_receiver(store: str) -> Iterator[Callable[[], socket.socket]]:
    """Opens receivers for `store`, and closes them after the test."""
    with ExitStack() as receivers:

        def opened() -> socket.socket:
            receiver = receivers.enter_context(processes.receiver(store))
            assert receiver is not None
            return receiver

        yield opened


def test_a_ring_is_heard_by_all_who_wait_for_its_queue(store: str, open_receiver: Callable[[], socket.socket]) -> None:
    mine, other, both = open_receiver(), open_receiver(), open_receiver()
    processes.send(store, ["a", "é"])
    assert processes.receives(mine, ["é"], LONG_S)
    assert not processes.receives(other, ["b", "a é"], 0.0)
    assert processes.receives(both, ["b", "a"], LONG_S)
    assert not processes.receives(both, ["a"], 0.0)  # one ring is heard once


def test_rings_for_others_neither_end_the_wait_nor_prolong_it(
    store: str, open_receiver: Callable[[], socket.socket]
) -> None:
    receiver, ends = open_receiver(), threading.Event()

    def ring_for_others() -> None:
        while not ends.is_set():
            processes.send(store, ["other"])

    ringing = threading.Thread(target=ring_for_others, daemon=True)
    ringing.start()
    try:
        started = SYSTEM_CLOCK.monotonic()
        assert not processes.receives(receiver, ["mine"], 0.2)
        assert 0.2 <= SYSTEM_CLOCK.monotonic() - started < LONG_S
    finally:
        ends.set()
        ringing.join(LONG_S)


def test_a_ring_is_for_one_store(store: str, open_receiver: Callable[[], socket.socket]) -> None:
    receiver = open_receiver()
    processes.send(f"{store}x", ["a"])
    assert not processes.receives(receiver, ["a"], 0.0)


def test_a_ring_for_very_many_queues_is_for_all(store: str, open_receiver: Callable[[], socket.socket]) -> None:
    receiver = open_receiver()
    processes.send(store, [f"queue-{number}" for number in range(1_000)])
    assert processes.receives(receiver, ["any"], LONG_S)


def test_those_behind_an_empty_place_are_reached(store: str) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(processes.receiver(store))
        second = stack.enter_context(processes.receiver(store))
        assert first is not None and second is not None
        first.close()
        processes.send(store, ["a"])
        assert processes.receives(second, ["a"], LONG_S)
        with processes.receiver(store) as third:
            assert third is not None
            assert str(third.getsockname()).endswith("/0'")  # the free place is taken again


def test_who_finds_no_place_gets_no_ear_and_leaves_none_behind(store: str) -> None:
    with ExitStack() as stack:
        receivers = [stack.enter_context(processes.receiver(store)) for _ in range(processes._NUMBERS + 2)]
        assert [receiver is None for receiver in receivers] == [False] * processes._NUMBERS + [True] * 2
    with processes.receiver(store) as receiver:
        assert receiver is not None


def test_ringing_never_waits_for_one_who_does_not_listen(
    store: str, open_receiver: Callable[[], socket.socket]
) -> None:
    first, second = open_receiver(), open_receiver()
    for _ in range(2_000):  # far more than a socket keeps
        processes.send(store, ["a"])
        assert processes.receives(second, ["a"], LONG_S)
    assert processes.receives(first, ["a"], LONG_S)


def test_where_nobody_waits_nobody_is_looked_for_at_each_of_many_pushes(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, looked = 100.0, list[bytes]()

    def nobody(_names: bytes, address: bytes) -> None:
        looked.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(processes, "SYSTEM_CLOCK", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(processes, "_sender", lambda: SimpleNamespace(sendto=nobody))
    for _ in range(3):
        processes.send(store, ["a"])
    assert len(looked) == 2  # and one behind an empty place
    processes.send(f"{store}x", ["a"])
    assert len(looked) == 4
    now += 0.003
    processes.send(store, ["a"])
    assert len(looked) == 6


def test_who_begins_to_wait_in_this_process_is_woken_whoever_was_not_there_before(store: str) -> None:
    processes.send(store, ["a"])
    with processes.receiver(store) as receiver:
        assert receiver is not None
        processes.send(store, ["a"])
        assert processes.receives(receiver, ["a"], LONG_S)


def test_without_such_sockets_nobody_hears_and_nothing_fails(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with processes.receiver(store) as receiver:
        assert receiver is None
        processes.send(store, ["a"])


class TestBetweenProcesses:
    """The stores' own polls are as good as switched off: what ends the wait is the other process."""

    @pytest.fixture(params=["sqlite", "mariadb"])
    def url(self, request: pytest.FixtureRequest, make_store_url: Callable[[str], str]) -> str:
        return make_store_url(request.param)

    @pytest.fixture
    def driver(self, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[SQLAlchemyDriver]:
        for module in (sqlite, watching):
            monkeypatch.setattr(module, "_POLL_S", 10 * LONG_S)
            monkeypatch.setattr(module, "_LIVELY_POLL_S", 10 * LONG_S)
        driver = SQLAlchemyDriver(url)
        driver.setup()
        yield driver
        driver.close()

    def test_a_push_by_another_process_ends_the_wait(self, driver: SQLAlchemyDriver, url: str) -> None:
        answers: list[bool] = []
        waiting = threading.Thread(target=lambda: answers.append(driver.wait(["q"], 10 * LONG_S)), daemon=True)
        waiting.start()
        self.until_it_listens(driver)
        subprocess.run([sys.executable, "-c", PUSH, url, "other"], check=True, timeout=LONG_S)
        waiting.join(0.1)
        assert waiting.is_alive()
        subprocess.run([sys.executable, "-c", PUSH, url, "q"], check=True, timeout=LONG_S)
        waiting.join(LONG_S)
        assert answers == [True]

    def until_it_listens(self, driver: SQLAlchemyDriver) -> None:
        dialect: Any = driver._dialect  # pyright: ignore[reportPrivateUsage]
        store = dialect._store() if driver.engine.dialect.name == "sqlite" else dialect._watcher._store
        ends = SYSTEM_CLOCK.monotonic() + LONG_S
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            while True:
                try:
                    probe.sendto(b"nobody", f"\0protojobs/{store}/0".encode())
                except ConnectionRefusedError:
                    assert SYSTEM_CLOCK.monotonic() < ends
                    time.sleep(0.01)
                else:
                    return
