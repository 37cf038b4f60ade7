"""Idle connections that something between here and the server has forgotten, without a word to either side."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine

from protojobs.entropy import fresh_id
from protojobs.port.records import NewJob
from protojobs_sqlalchemy import SQLAlchemyDriver
from protojobs_sqlalchemy.connecting import connections
from protojobs_sqlalchemy.connecting.urls import parse
from protojobs_sqlalchemy.dialect import Mode, Use

IDLE = 4
PING_S = 0.5


class Firewall:
    """Passes bytes on, until it forgets the connections that are open: it swallows what they send from then on."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._forgotten: set[socket.socket] = set()
        self._passing: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def forget(self) -> None:
        self._forgotten.update(self._passing)

    def close(self) -> None:
        self._server.close()
        for each in self._passing:
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                inner, _ = self._server.accept()
                outer = socket.create_connection(("127.0.0.1", self._target))
                self._passing += [inner, outer]
                for one, other in ((inner, outer), (outer, inner)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65_536):
                if one not in self._forgotten:
                    other.sendall(data)


@pytest.fixture(params=["postgresql", "mariadb"])
def behind(request: pytest.FixtureRequest, make_store_url: Callable[[str], str]) -> Iterator[tuple[str, Firewall]]:
    """The URL of a store, and the firewall that it leads through."""
    url = parse(make_store_url(request.param))
    assert url.port is not None
    with closing(Firewall(url.port)) as firewall:
        yield url.set(port=firewall.port).render_as_string(hide_password=False), firewall


def new_job() -> NewJob:
    return NewJob(id=fresh_id(), queue="q", job_name="n", job_class="c", data="{}")


def test_the_first_that_does_not_answer_costs_a_moment_and_condemns_the_others(
    behind: tuple[str, Firewall], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, firewall = behind
    driver = SQLAlchemyDriver(url)
    driver.setup()
    pings: list[float] = []
    answers = driver._connections._answers

    def noted(conn: Connection) -> bool:
        began = time.monotonic()
        try:
            return answers(conn)
        finally:
            pings.append(time.monotonic() - began)

    monkeypatch.setattr(driver._connections, "_answers", noted)
    monkeypatch.setattr(connections, "_PING_AFTER_S", 0.0)
    monkeypatch.setattr(connections, "_PING_S", PING_S)
    pool = driver._connections._pools[Use.CALL]
    with ExitStack() as stack:
        for _ in range(IDLE):
            stack.callback(pool.keep, pool.connect())
    firewall.forget()
    driver.enqueue([new_job()])
    assert sum(took >= PING_S for took in pings) == 1
    assert max(pings) < PING_S + 3  # and not the ten seconds that the whole call has
    assert driver.stats().pending == 1
    driver.close()


def test_on_mariadb_the_kernel_looks_after_connections_that_say_nothing(make_store_url: Callable[[str], str]) -> None:
    """As PostgreSQL's library lets it do."""
    driver = SQLAlchemyDriver(make_store_url("mariadb"))
    driver.setup()

    def options(conn: Connection) -> list[int]:
        raw: Any = conn.connection.driver_connection
        names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
        wanted = [getattr(socket, name) for name in names if hasattr(socket, name)]
        found = [raw._sock.getsockopt(socket.IPPROTO_TCP, option) for option in wanted]
        return [raw._sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), *found]

    usual = create_engine(driver.engine.url)
    with driver.begin() as session, usual.connect() as conn:
        for ours in (driver._connections.run(options, Mode.SINGLE), options(session.connection())):
            assert ours[0] == 1
            assert all(mine < theirs for mine, theirs in zip(ours[1:4], options(conn)[1:4], strict=True))
    usual.dispose()
    driver.close()
