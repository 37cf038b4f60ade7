"""URLs that name several hosts, as PostgreSQL's own library takes them: a primary and those that may follow it."""

from __future__ import annotations

import re

from sqlalchemy import URL, make_url

from protojobs.errors import ConfigurationError, one_line

__all__ = ["hosts_of", "read_url", "shown", "with_hosts_apart"]

Host = tuple[str, int | None]  # a port that is not named is the usual one

_PORT = 5432
_PORT_MAX = 65535
_PLACE = "hosts.invalid"
_WRITABLE = ("read-write", "primary", "any")
_URL = re.compile(r"(?P<head>postgresql(?:\+\w+)?://(?:[^:/]*(?::[^@]*)?@)?)(?P<hosts>[^/?]*)(?P<tail>.*)", re.DOTALL)


def read_url(text: str | URL) -> URL:
    """As SQLAlchemy's make_url, which takes several hosts with ports only in the query: `?host=one:1,two:2`."""
    match = _URL.fullmatch(text) if isinstance(text, str) else None
    if match is None or "," not in match["hosts"]:
        return make_url(text)
    if "@" in match["hosts"]:
        raise ConfigurationError("The URL has an @ too many.", mend="Write that in the password as %40.")
    url = make_url(match["head"] + match["tail"])
    if "host" in url.query:
        raise ConfigurationError("The URL names hosts before its path and after it.", mend="Name them in one place.")
    return url.update_query_dict({"host": match["hosts"]})


def with_hosts_apart(url: URL) -> URL:
    """A PostgreSQL URL in the form in which both SQLAlchemy and the library below it understand its hosts.

    Of several hosts the first that takes writes is used, unless the URL says otherwise; whichever that is may change.
    """
    hosts = hosts_of(url)
    if len(hosts) < 2:
        return url
    query = {"target_session_attrs": "read-write", **url.query}
    if query["target_session_attrs"] not in _WRITABLE:
        raise ConfigurationError(
            f"target_session_attrs={query['target_session_attrs']} leads to servers that take no writes.",
            mend="Leave it out of the URL: of several hosts the one that takes writes is used.",
        )
    query["host"] = ",".join(host for host, _ in hosts)
    query["port"] = ",".join(str(port or _PORT) for _, port in hosts)
    return URL.create(url.drivername, url.username, url.password, database=url.database, query=query)


def hosts_of(url: URL) -> tuple[Host, ...]:
    """The hosts of a PostgreSQL URL in its order, wherever it names them."""
    if url.host is not None:
        return tuple(_host(name, url.port) for name in url.host.split(","))
    names, ports = _listed(url, "host"), [_port(port) for port in _listed(url, "port")]
    if len(ports) not in (0, 1, len(names) or 1):
        raise ConfigurationError(f"The URL names {len(names)} hosts and {len(ports)} ports.", mend="Pair them.")
    if len(ports) < len(names):
        ports = (ports or [None]) * len(names)
    return tuple(_host(name, port) for name, port in zip(names, ports, strict=False)) or (("", (ports or [None])[0]),)


def shown(url: URL) -> str:
    """The URL as people write it, its hosts before the path, and without its password."""
    hosts = hosts_of(url)
    if len(hosts) < 2:
        return url.render_as_string(hide_password=True)
    rest = {name: value for name, value in url.query.items() if name not in ("host", "port")}
    text = URL.create(url.drivername, url.username, url.password, _PLACE, database=url.database, query=rest)
    names = [(f"[{host}]" if ":" in host else host, port) for host, port in hosts]
    place = ",".join(host if port is None else f"{host}:{port}" for host, port in names)
    return text.render_as_string(hide_password=True).replace(_PLACE, place, 1)


def _listed(url: URL, name: str) -> list[str]:
    values = url.query.get(name, ())
    return [part for one in ((values,) if isinstance(values, str) else values) for part in one.split(",")]


def _host(name: str, port: int | None) -> Host:
    if name.startswith("["):  # an address of version 6
        host, bracket, rest = name[1:].partition("]")
        has_port = rest.startswith(":")
        if not bracket or (rest and not has_port):
            raise ConfigurationError(f'"{one_line(name)}" is no host.', mend='Write it like "[::1]:5432".')
        return host, _port(rest[1:]) if has_port else port
    host, colon, own = name.rpartition(":") if name.count(":") == 1 else (name, "", "")
    if not host:
        raise ConfigurationError("The URL names a host without a name.", mend='Write it like "one:5432,two:5432".')
    return host, _port(own) if colon else port


def _port(text: str) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or not 0 < int(text) <= _PORT_MAX:
        raise ConfigurationError(f'"{one_line(text)}" is no port.', mend='Write hosts like "one:5432,two:5432".')
    return int(text)
