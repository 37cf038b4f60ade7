"""Clients of redis-py: how one is made from an address, and its interfaces as we use them, with types."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol, cast

import redis.cluster
import redis.sentinel
from redis import Redis, RedisCluster
from redis.backoff import NoBackoff
from redis.exceptions import MovedError, RedisClusterException, RedisError
from redis.retry import Retry

from protojobs.errors import ConfigurationError
from protojobs_redis.connecting.bounded import connection_class, managed_connection_class
from protojobs_redis.connecting.urls import TIMEOUT_S, Address, options_of
from protojobs_redis.packing import HALVES

__all__ = [
    "Client",
    "Connection",
    "Pipeline",
    "Pool",
    "Server",
    "cluster_client",
    "idle_closed",
    "not_understood",
    "note_move",
    "note_trouble",
    "plain_client",
    "server_of",
]


class Connection(Protocol):
    """One connection to one server."""

    socket_timeout: float | None
    socket_connect_timeout: float | None

    @property
    def is_connected(self) -> bool:
        """Whether it is open, as far as is known."""
        ...

    def connect(self) -> None:
        """Open it."""

    def disconnect(self) -> None:
        """Close it."""

    def can_read(self, timeout: float = 0) -> bool:
        """Whether something came; raises where the other side closed it."""
        ...

    def send_command(self, *command: str | bytes | int) -> None:
        """Send a command."""

    def read_response(self, *, timeout: float) -> object:
        """The next reply; raises a refusal, and after `timeout` seconds without a byte."""
        ...


class Pool(Protocol):
    """A server's connections."""

    connection_kwargs: Mapping[str, object]

    def connection_class(self, **options: object) -> Connection:
        """Make a connection that is not the pool's."""
        ...

    def get_connection(self) -> Connection:
        """One that is open, and the caller's own until `release`."""
        ...

    def release(self, connection: Connection) -> None:
        """Take it back."""

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Close connections."""


class Client(Protocol):
    """A way to the server that holds the key of a command."""

    def execute_command(self, *command: str | bytes | int) -> object:
        """The server's reply."""
        ...


class Pipeline(Protocol):
    """Commands that go out together on one connection."""

    def execute_command(self, *command: str | bytes | int) -> object:
        """Add one."""
        ...

    def execute(self, raise_on_error: bool = True) -> Sequence[object]:
        """Their replies, in order."""
        ...


class Server(Client, Protocol):
    """One server."""

    connection_pool: Pool

    def pipeline(self, transaction: bool = True) -> Pipeline:
        """A new one, empty."""
        ...

    def scan(self, cursor: int, *, match: str, count: int) -> tuple[int, list[bytes]]:
        """Some of the keys, and where to go on."""
        ...

    def unlink(self, *keys: bytes) -> int:
        """Delete keys."""
        ...


IDLE_MAX_S = 30  # after so long without a word a connection is asked for one, before a command goes over it

# Nothing is sent twice by itself. The library would send a command again after a lost reply, up to ten times; a claim
# that was executed and is sent again claims a second batch, and nobody knows of the first.
_LIMITS: dict[str, object] = {
    "socket_timeout": TIMEOUT_S,
    "socket_connect_timeout": TIMEOUT_S,
    "health_check_interval": IDLE_MAX_S,
    "protocol": 2,
    "encoding_errors": HALVES,
    "retry": Retry(NoBackoff(), 0),
}
# A connection whose other side says nothing is given up after 11 seconds, also one that waits for a reply.
_KEEPALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 11_000}
_OVER_TCP: dict[str, object] = {
    "socket_keepalive": True,
    "socket_keepalive_options": {
        getattr(socket, name): value for name, value in _KEEPALIVE.items() if hasattr(socket, name)
    },
}


def plain_client(address: Address) -> Server:
    """A client of one server, or of the primary that the Sentinels name. Opens nothing yet."""
    try:
        if address.sentinels:
            return _sentinel_client(address)
        options = _LIMITS if address.url.startswith("unix:") else {**_LIMITS, **_OVER_TCP}
        kind = connection_class(address.url)
        return cast("Server", _call(Redis, "from_url", address.url, connection_class=kind, **options))
    except (TypeError, ValueError) as error:
        raise not_understood(address, error) from error


def cluster_client(address: Address) -> Client:
    """A client of a cluster; asks it for its layout."""
    try:
        nodes = [_call(redis.cluster, "ClusterNode", host, port) for host, port in address.nodes]
        options = {"startup_nodes": nodes, "connection_class": connection_class(address.url), **_LIMITS, **_OVER_TCP}
        return cast("Client", _call(RedisCluster, "from_url", address.url, **options))
    except (TypeError, ValueError) as error:
        raise not_understood(address, error) from error


def server_of(client: Client, key: str) -> Server:
    """The server that holds the key."""
    if isinstance(client, RedisCluster):
        node = _call(client, "get_node_from_key", key)
        return cast("Server", _call(client, "get_redis_connection", node))
    return cast("Server", client)


def idle_closed(client: Client) -> None:
    """Close the connections that nobody uses just now; the others close when their reply has come."""
    if isinstance(client, RedisCluster):
        nodes = cast("list[object]", _call(client, "get_nodes"))
        servers = [cast("Server | None", getattr(node, "redis_connection", None)) for node in nodes]
    else:
        servers = [cast("Server", client)]
    for server in servers:
        if server is not None:
            server.connection_pool.disconnect(inuse_connections=False)


def note_move(client: Client | None, error: MovedError) -> None:
    """Remember where a cluster said that a slot is now."""
    if isinstance(client, RedisCluster):
        client.nodes_manager.move_slot(error)


def note_trouble(client: Client) -> None:
    """Ask a cluster for its layout anew: a node did not answer. The library does so for what it sends itself."""
    if isinstance(client, RedisCluster):
        with suppress(RedisError, RedisClusterException, OSError):
            _call(client.nodes_manager, "initialize")


def _sentinel_client(address: Address) -> Server:
    options = {**_LIMITS, **_OVER_TCP, **options_of(address.url)}
    for name in ("host", "port", "connection_class"):
        options.pop(name, None)
    to_sentinels = {name: value for name, value in options.items() if name.startswith(("socket_", "ssl_", "retry"))}
    for name in ("username", "password"):
        if (value := options.pop(f"sentinel_{name}", None)) is not None:
            to_sentinels[name] = value
    if address.is_tls:
        options["ssl"] = to_sentinels["ssl"] = True
    options["connection_class"] = managed_connection_class(is_tls=address.is_tls)
    sentinel = _call(redis.sentinel, "Sentinel", address.sentinels, sentinel_kwargs=to_sentinels)
    return cast("Server", _call(sentinel, "master_for", address.service, **options))


def _call(owner: object, name: str, *arguments: object, **options: object) -> object:
    """Call something of the library whose types are open or wrong."""
    return cast("object", getattr(owner, name)(*arguments, **options))


def not_understood(address: Address, error: Exception) -> ConfigurationError:
    """What to raise when the library does not know an option of the URL."""
    return ConfigurationError(
        f"The options of {address.shown} are not understood: {error}.", mend="See redis-py's options of a connection."
    )
