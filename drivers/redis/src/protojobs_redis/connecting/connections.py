"""Connections: the client of one driver object, made at its first use, and the one way to send a script over it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    SlotNotCoveredError,
    TimeoutError,
    TryAgainError,
)

from protojobs.clock import time_left
from protojobs.errors import ProtojobsError
from protojobs_redis.connecting.clients import (
    Client,
    Connection,
    Server,
    cluster_client,
    idle_closed,
    not_understood,
    note_move,
    note_trouble,
    plain_client,
    server_of,
)
from protojobs_redis.connecting.held_connections import HeldConnections, packed, packed_words
from protojobs_redis.connecting.layout import Mark, outdated
from protojobs_redis.connecting.readiness import check_server, facts_of
from protojobs_redis.connecting.replicas import Replicas
from protojobs_redis.connecting.translation import translated
from protojobs_redis.connecting.urls import TIMEOUT_S, Address
from protojobs_redis.scripting import Script, script

__all__ = ["Connections"]

MOVES_MAX = 4  # how often a step follows a namespace that moves

Sender = Callable[..., object]  # of a server and a command

_inherited: list[object] = []  # a forked child must neither use nor close its parent's connections, so it keeps them


class Connections:
    """The client of one driver object: made at its first use, and anew in a forked child."""

    def __init__(self, address: Address, namespace: str, replicas: Replicas) -> None:
        self.address = address
        self._replicas = replicas
        self.prefix = f"{{{namespace}}}:"
        self._ready: Client | None = None
        # To a single server; a cluster's or Sentinels' client finds its way by itself.
        self._held: HeldConnections | None = None
        self._packed_starts: dict[str, bytes] = {}
        self.silences = 0  # how often one fell silent; those that were opened before are not used again
        self._start_afresh()

    def run(self, which: Script, *arguments: str | bytes | int, is_kept: bool = False) -> object:
        """The script's reply. Only our own exceptions leave.

        `is_kept`: not before so many replicas have its writes as the settings ask for.
        """
        try:
            return self._run(which, *arguments, is_waited_for=is_kept and self._replicas.number > 0)
        except Exception as error:
            if (ours := self._translated(error)) is None:
                raise
            raise ours from error

    def _run(self, which: Script, *arguments: str | bytes | int, is_waited_for: bool) -> object:
        client = self._client()
        held = None if is_waited_for else self._held
        send = self._send_and_await_replicas if is_waited_for else _send
        try:
            if held is not None:
                return self._run_on(held, which, *arguments)
            try:
                return self._send_to_owner(client, send, "EVALSHA", which.sha, 1, self.prefix, *arguments)
            except NoScriptError:  # a fresh server, a failover, SCRIPT FLUSH; nothing was done
                return self._send_to_owner(client, send, "EVAL", which.text, 1, self.prefix, *arguments)
        except ReadOnlyError:
            self._forget(client)
            raise

    def _run_on(self, held: HeldConnections, which: Script, *arguments: str | bytes | int) -> object:
        start = self._packed_starts.get(which.name)
        if start is None:
            start = self._packed_starts[which.name] = packed_words("EVALSHA", which.sha, "1", self.prefix)
        try:
            return held.ask(packed(4, start, *arguments))
        except NoScriptError:  # as above
            return held.ask(packed(0, b"", "EVAL", which.text, 1, self.prefix, *arguments))

    def _send_to_owner(self, client: Client, send: Sender, *command: str | bytes | int) -> object:
        """The reply of the server that holds the namespace, and of no other.

        While a cluster moves the slot, its old server sends us on to the new one (ASK) with each script, as no key has
        the name of the prefix. The library would follow, to where only a part of the keys has come: a job pushed there
        would be on neither side, and a claim that stands would be found nowhere. So we wait until all have moved.
        """
        for _ in range(MOVES_MAX):
            try:
                return send(server_of(client, self.prefix), *command)
            except MovedError as error:
                note_move(client, error)
            except AskError as error:
                raise TryAgainError("the namespace is on its way to another node") from error
            except (ConnectionError, TimeoutError, ClusterDownError, SlotNotCoveredError):
                note_trouble(client)
                raise
        raise TryAgainError("the namespace moves from node to node")

    def _send_and_await_replicas(self, server: Server, *command: str | bytes | int) -> object:
        return self._replicas.run(server, self.address.shown, f"{self.prefix}kept", *command)

    def server(self) -> Server:
        """The server that holds the namespace."""
        return server_of(self._client(), self.prefix)

    def new_connection(self) -> Connection:
        """A connection apart from the pool, not yet open, to the server that holds the namespace."""
        pool = self.server().connection_pool
        return pool.connection_class(**pool.connection_kwargs)

    @property
    def wait_replicas(self) -> int:
        """How many replicas must have a write before it counts."""
        return self._replicas.number

    def set_up_layout(self) -> None:
        """Mark the namespace with this release's layout; one of an older layout too, where what is stored can stay.

        Raises SchemaOutdated for the mark of a layout that this release cannot work on.
        """
        with self.translating():
            self._check_layout(self._client(may_upgrade=True), may_upgrade=True)

    def moved(self, error: MovedError) -> None:
        """Note where a cluster said that the namespace is now."""
        note_move(self._ready, error)

    @contextmanager
    def translating(self) -> Generator[None]:
        """Turn what the library raises into what the port promises."""
        try:
            yield
        except Exception as error:
            if (ours := self._translated(error)) is None:
                raise
            raise ours from error

    def _translated(self, error: Exception) -> ProtojobsError | None:
        """What the port promises to raise for it; None for what may leave as it is."""
        if isinstance(error, TimeoutError):
            self._close_idle()
        ours = translated(error, self.address.shown)
        return None if ours is error else ours

    def close(self) -> None:
        """Close what is idle; the next call opens new connections. A call that is under way gets its reply."""
        if self._pid != os.getpid():
            self._start_afresh()
        self._forget(self._ready)

    @property
    def pid(self) -> int:
        """The process whose connections these are."""
        return self._pid

    def _close_idle(self) -> None:
        """Trust no connection that was idle while another one fell silent.

        A firewall that has forgotten one has mostly forgotten all. Each would cost its caller the whole time limit, and
        as many callers as there are connections.
        """
        self.silences += 1
        if (held := self._held) is not None:
            held.close_idle()
        if (client := self._ready) is not None:
            idle_closed(client)

    def _start_afresh(self) -> None:
        """Let go of the parent's connections. Several threads of a child may do so at once, which is harmless."""
        if self._ready is not None:
            _inherited.extend((self._ready, self._held))
        self._lock = threading.Lock()
        self._ready = self._held = None
        self._was_ready = False
        self._pid = os.getpid()  # last: from now on other threads use what is here

    def _client(self, *, may_upgrade: bool = False) -> Client:
        if self._pid != os.getpid():
            self._start_afresh()
        client = self._ready
        if client is None:
            # Whoever comes first may wait for a silent server; the others need not do so one after the other.
            lock = self._lock  # another thread of a forked child may put a new one there
            if not lock.acquire(timeout=time_left(TIMEOUT_S)):
                raise TimeoutError("another thread has not reached the server so far")
            try:
                client = self._ready
                if client is None:
                    client = self._ready = self._checked(may_upgrade=may_upgrade)
            finally:
                lock.release()
        return client

    def _checked(self, *, may_upgrade: bool) -> Client:
        """A client whose server is fit for jobs."""
        client: Client
        is_plain = not self.address.is_cluster and not self.address.sentinels
        if self.address.is_cluster:
            client = cluster_client(self.address)
            facts = facts_of(server_of(client, self.prefix))
        else:
            client = plain_client(self.address)
            try:
                facts = facts_of(client)
            except TypeError as error:  # the library looks at most options when it makes its first connection
                raise not_understood(self.address, error) from error
            if facts.get("cluster_enabled") == 1:
                is_plain = False
                client = cluster_client(self.address)
                facts = facts_of(server_of(client, self.prefix))
        check_server(facts, self.address.shown, was_ready=self._was_ready)
        self._check_layout(client, may_upgrade=may_upgrade)
        self._was_ready = True
        if is_plain:
            self._held = HeldConnections(server_of(client, self.prefix))
        return client

    def _check_layout(self, client: Client, *, may_upgrade: bool) -> None:
        """Mark a namespace that has no mark, and raise SchemaOutdated unless this release can work on it.

        `may_upgrade`: also give the mark of this release to one of an older layout.
        """
        text = self._marked(client, "")
        mark = Mark.parsed(text)
        if may_upgrade and mark is not None and mark.may_be_upgraded:
            text = self._marked(client, mark.text)  # unless another process was first: then it is that one's mark
            mark = Mark.parsed(text)
        if mark is None or not mark.fits:
            raise outdated(text, mark, self.prefix[:-1], self.address.shown)

    def _marked(self, client: Client, replaced: str) -> object:
        text = script("setup").text
        new = Mark.of_this_release().text
        return self._send_to_owner(client, _send, "EVAL", text, 1, self.prefix, 0, new, replaced)

    def _forget(self, client: Client | None) -> None:
        """Let go of the client, unless another thread has seen to it."""
        if client is not None and self._ready is client:
            self._ready, held, self._held = None, self._held, None
            if held is not None:
                held.close()
            idle_closed(client)


def _send(server: Server, *command: str | bytes | int) -> object:
    return server.execute_command(*command)
