"""URLs of a store: which servers they name, in which arrangement, and how to reach them."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

import redis.connection
from msgspec import Struct
from msgspec.structs import replace

from protojobs.errors import ConfigurationError, DriverNotFound, OptionInvalid, shown
from protojobs.port.urls import ENCODE, check_url, masked

__all__ = ["Address", "check_namespace", "options_of", "parse"]

TIMEOUT_S = 5.0  # to connect, and for a reply: no verb hangs for longer than a few of these

_SCHEMES = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss", "unix": "unix"}
_EXAMPLE = 'Write one like "redis://localhost:6379/0".'
_OURS = ("cluster", "namespace", "wait_replicas", "wait_timeout")
_TRUE = {"true", "yes", "1", "on", ""}


class Address(Struct, frozen=True, kw_only=True):
    """Where the store is. `url` is in redis-py's form and has our own options taken out."""

    url: str
    is_cluster: bool = False  # the URL says so; otherwise the server is asked
    namespace: str | None = None
    wait_replicas: str | None = None
    wait_timeout: str | None = None
    nodes: tuple[tuple[str, int], ...] = ()  # of a cluster, where several are named
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str = ""
    is_tls: bool = False
    shown: str = ""  # for people and logs: without passwords


def parse(url: str) -> Address:
    """The address that `url` names.

    `redis://[user:password@]host[:port][/db]`, `rediss://` (TLS), `valkey://`, `valkeys://`, `unix:///path`, or
    `redis+sentinel://host:port,host:port/service[/db]`, or `redis://host:port,host:port?cluster=true`. Options
    `cluster`, `namespace`, `wait_replicas` and `wait_timeout` are ours, all others go to redis-py. Raises
    ConfigurationError.
    """
    if not isinstance(url, str):
        raise OptionInvalid(f"A driver is made from a URL, not from {type(url).__name__}.")
    parts = _split(url)
    scheme, _, plus = parts.scheme.partition("+")
    if scheme not in _SCHEMES or plus not in ("", "sentinel", "cluster"):
        raise DriverNotFound(f"The Redis driver does not know the scheme {shown(parts.scheme)}.", mend=_schemes())
    options = parse_qsl(parts.query, keep_blank_values=True)
    ours = {name: value for name, value in options if name in _OURS}
    theirs = [(name, value) for name, value in options if name not in ours]
    if any(name == "decode_responses" for name, _ in theirs):
        raise ConfigurationError("decode_responses is the driver's own affair.", mend="Leave it out of the URL.")
    parts = parts._replace(scheme=_SCHEMES[scheme], query=urlencode(theirs))
    address = Address(
        url=_joined(parts),
        is_cluster=plus == "cluster" or ours.get("cluster", "false").lower() in _TRUE,
        namespace=ours.get("namespace"),
        wait_replicas=ours.get("wait_replicas"),
        wait_timeout=ours.get("wait_timeout"),
        is_tls=_SCHEMES[scheme] == "rediss",
        shown=masked(url),
    )
    if plus == "sentinel":
        hosts, service, database = _sentinels(parts.netloc, parts.path)
        at = parts.netloc.rpartition("@")
        plain = _joined(parts._replace(netloc=f"{at[0]}{at[1]}service", path=f"/{database}"))
        address = replace(address, url=plain, sentinels=hosts, service=service)
    elif "," in parts.netloc.rpartition("@")[2]:
        address = _with_nodes(address, parts)
    _check(address)
    return address


def check_namespace(namespace: str) -> str:
    """`namespace` itself, if it may be the hash tag of all keys."""
    if not namespace or not namespace.isprintable() or "{" in namespace or "}" in namespace or len(namespace) > 100:
        raise OptionInvalid(
            f"{shown(namespace)} is no namespace.", mend="Use 1 to 100 printable characters without braces."
        )
    return namespace


def options_of(url: str) -> dict[str, object]:
    """The options in a URL, as redis-py reads them; ValueError where it cannot."""
    parse_url: object = getattr(redis.connection, "parse_url")  # noqa: B009  it has no types
    return cast("Callable[[str], dict[str, object]]", parse_url)(url)


def _with_nodes(address: Address, parts: SplitResult) -> Address:
    """The address of a cluster of which the URL names several nodes."""
    if not address.is_cluster:
        raise ConfigurationError(
            f"{shown(address.shown)} names several hosts.",
            mend="Say what they are: ?cluster=true, or redis+sentinel://.",
        )
    nodes = _hosts(parts.netloc, 6379, "a node")
    credentials, at, hosts = parts.netloc.rpartition("@")
    first = _joined(parts._replace(netloc=f"{credentials}{at}{hosts.partition(',')[0]}"))
    return replace(address, url=first, nodes=nodes)


def _sentinels(netloc: str, path: str) -> tuple[tuple[tuple[str, int], ...], str, int]:
    service, _, database = path.strip("/").partition("/")
    if not service or (database and not database.isdigit()):
        raise ConfigurationError(
            "A Sentinel URL names the service after the hosts.",
            mend='Write "redis+sentinel://host:26379,host2:26379/service/0".',
        )
    return _hosts(netloc, 26379, "a Sentinel"), unquote(service), int(database or 0)


def _hosts(netloc: str, port: int, what: str) -> tuple[tuple[str, int], ...]:
    hosts: list[tuple[str, int]] = []
    for text in netloc.rpartition("@")[2].split(","):
        parts = urlsplit(f"//{text}")
        try:
            hosts.append((parts.hostname or "localhost", parts.port or port))
        except ValueError as error:
            raise ConfigurationError(f"{shown(text)} is no address of {what}: {error}.") from error
    return tuple(hosts)


def _joined(parts: SplitResult) -> str:
    """As `urlunsplit`, which forgets the slashes of `unix:///path`."""
    return f"{parts.scheme}://{parts.netloc}{parts.path}" + (f"?{parts.query}" if parts.query else "")


def _check(address: Address) -> None:
    try:
        options_of(address.url)
    except ValueError as error:
        raise ConfigurationError(f"{shown(address.shown)} is not a Redis URL: {error}.", mend=_EXAMPLE) from error


def _split(url: str) -> SplitResult:
    """Raises ConfigurationError, without what the library says where that may quote a piece of a password."""
    check_url(url)
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigurationError(f"{shown(masked(url))} is not a Redis URL.", mend=_EXAMPLE) from (
            None if "@" in url else error
        )
    if "@" not in parts.netloc and "@" in url and ("@" in url.partition("?")[0] or not _is_place_and_options(parts)):
        raise ConfigurationError(f"{shown(masked(url))} is not a Redis URL.", mend=ENCODE)
    return parts


def _is_place_and_options(parts: SplitResult) -> bool:
    """Whether host and port stand before the ?, and options after it. If not, the ? belongs to a password."""
    try:
        parts.port  # noqa: B018  (it is read when asked for)
    except ValueError:
        return False
    return "=" in parts.query.partition("@")[0]


def _schemes() -> str:
    return f"It knows {', '.join(_SCHEMES)}, and redis+sentinel."
