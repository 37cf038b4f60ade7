"""Where connections come from, and the one way in which a script is sent over them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from redis import Redis, RedisCluster
from redis.backoff import NoBackoff
from redis.connection import Connection, ConnectionPool, parse_url
from redis.exceptions import MovedError, NoScriptError, ReadOnlyError
from redis.retry import Retry
from redis.sentinel import Sentinel

from protojobs.errors import ConfigurationError, SchemaOutdated
from protojobs_redis.readiness import Node, check_server, facts_of
from protojobs_redis.scripting import Script, script
from protojobs_redis.translation import translated
from protojobs_redis.urls import TIMEOUT_S, Address

__all__ = ["Connections"]

LAYOUT = 1  # the version of how jobs are kept, see scripts/prelude.lua

Client = Redis | RedisCluster

_inherited: list[object] = []  # a forked child must neither use nor close its parent's connections, so it keeps them


class Connections:
    """The client of one driver object: made at its first use, and anew in a forked child.

    Nothing is sent twice by itself. The library would send a command again after a lost answer, up to ten times; a
    claim that was executed and then sent again lends a second batch, and nobody knows of the first.
    """

    def __init__(self, address: Address, namespace: str) -> None:
        self.address = address
        self.prefix = f"{{{namespace}}}:"
        self._start_afresh()

    def run(self, which: Script, *arguments: str | bytes | int) -> object:
        """What the script answers. Only our own exceptions leave."""
        with self.translating():
            client = self._client()
            try:
                return cast("object", client.execute_command("EVALSHA", which.sha, 1, self.prefix, *arguments))
            except NoScriptError:  # a fresh server, a failover, SCRIPT FLUSH; nothing was done
                return cast("object", client.execute_command("EVAL", which.text, 1, self.prefix, *arguments))
            except ReadOnlyError:
                self._forget(client)
                raise

    def server(self) -> Redis:
        """The server that holds the namespace."""
        return self._server(self._client())

    def new_connection(self) -> Connection:
        """A connection apart from the pool, not yet connected, to the server that holds the namespace."""
        pool = cast("ConnectionPool", self.server().connection_pool)
        return cast("Connection", pool.connection_class(**pool.connection_kwargs))

    def moved(self, error: MovedError) -> None:
        """Note where a cluster said that the namespace is now."""
        client = self._ready
        if isinstance(client, RedisCluster):
            client.nodes_manager.move_slot(error)

    @contextmanager
    def translating(self) -> Iterator[None]:
        """Turn what the library raises into what the port promises."""
        try:
            yield
        except Exception as error:
            ours = translated(error, self.address.shown, self.address.secrets)
            if ours is None or ours is error:
                raise
            raise ours from error

    def close(self) -> None:
        """Close all connections; the next call opens new ones."""
        if self._pid != os.getpid():
            self._start_afresh()
        client, self._ready = self._ready, None
        if client is not None:
            client.close()

    @property
    def pid(self) -> int:
        """The process whose connections these are."""
        return self._pid

    # ----------------------------------------------------------------------------------------------------- first use

    def _start_afresh(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._ready: Client | None = None
        self._was_ready = False

    def _client(self) -> Client:
        if self._pid != os.getpid():
            _inherited.append(self._ready)
            self._start_afresh()
        client = self._ready
        if client is None:
            with self._lock:
                client = self._ready
                if client is None:
                    client = self._checked()
                    self._ready = client
        return client

    def _checked(self) -> Client:
        """A client whose server is fit for jobs."""
        client = self._made(is_cluster=self.address.is_cluster)
        try:
            facts = facts_of(cast("Node", self._server(client)))
            if facts.get("cluster_enabled") == 1 and not isinstance(client, RedisCluster):
                client.close()
                client = self._made(is_cluster=True)
                facts = facts_of(cast("Node", self._server(client)))
            check_server(facts, self.address.shown, was_ready=self._was_ready)
            self._check_layout(client)
        except BaseException:
            client.close()
            raise
        self._was_ready = True
        return client

    def _check_layout(self, client: Client) -> None:
        found = client.execute_command("EVAL", script("setup").text, 1, self.prefix, 0, LAYOUT)
        if found != str(LAYOUT).encode():
            raise SchemaOutdated(
                f"The namespace {self.prefix[:-1]} in {self.address.shown} has layout {found!r}, this version of"
                f" protojobs-redis knows {LAYOUT}.",
                mend="Upgrade protojobs-redis.",
            )

    def _made(self, *, is_cluster: bool) -> Client:
        once = Retry(NoBackoff(), 0)
        limits = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S, "protocol": 2}
        try:
            if self.address.sentinels:
                return self._sentinel_client({**limits, "retry": once})
            if is_cluster:
                return RedisCluster.from_url(self.address.url, retry=once, **limits)
            return Redis.from_url(self.address.url, retry=once, **limits)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"The options of {self.address.shown} are not understood: {error}.") from error

    def _sentinel_client(self, limits: dict[str, object]) -> Redis:
        options = limits | cast("dict[str, object]", parse_url(self.address.url))
        for name in ("host", "port", "connection_class"):
            options.pop(name, None)
        to_sentinels = {name: value for name, value in options.items() if name.startswith(("socket_", "ssl_", "retry"))}
        for name in ("username", "password"):
            if (value := options.pop(f"sentinel_{name}", None)) is not None:
                to_sentinels[name] = value
        if self.address.is_tls:
            options["ssl"] = to_sentinels["ssl"] = True
        sentinel = Sentinel(self.address.sentinels, sentinel_kwargs=to_sentinels)
        return cast("Redis", sentinel.master_for(self.address.service, **options))

    def _server(self, client: Client) -> Redis:
        if isinstance(client, RedisCluster):
            return client.get_redis_connection(client.get_node_from_key(self.prefix))
        return client

    def _forget(self, client: Client) -> None:
        if self._ready is client:  # else another thread has seen to it
            self._ready = None
