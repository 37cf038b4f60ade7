"""From an entry of DATABASES to where the driver connects: a SQLAlchemy URL, with all that it needs escaped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import parse_qsl

from sqlalchemy import URL

from protojobs.errors import ConfigurationError, shown

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

__all__ = ["address_of", "is_in_memory", "is_pooled"]

# Of Django's own connections, and not of the way to the server.
_DJANGOS_OWN = ("autocommit", "client_encoding", "context", "cursor_factory", "prepare_threshold", "row_factory")
# Options of the MySQL backend that say how to reach the server. Others, such as init_command and charset, are for
# Django's own connections.
_MYSQL_WAY = ("unix_socket", "ssl_ca", "ssl_cert", "ssl_key", "ssl_disabled", "read_default_file", "read_default_group")


def address_of(wrapper: BaseDatabaseWrapper, options: Mapping[str, str]) -> URL:
    """Where this connection of Django leads, as a URL of the SQL driver. `options` are added to its query.

    Raises ConfigurationError for a database that the driver does not know.
    """
    makers = {"postgresql": _postgresql, "sqlite": _sqlite, "mysql": _mysql}
    if wrapper.vendor not in makers:
        raise ConfigurationError(
            f"DATABASES[{shown(wrapper.alias)}] is {wrapper.display_name}, in which protojobs keeps no jobs.",
            mend='Name a PostgreSQL, MariaDB, MySQL or SQLite database: PROTOJOBS = {"database": ...}.',
        )
    return makers[wrapper.vendor](wrapper).update_query_dict(options)


def is_in_memory(url: URL) -> bool:
    """Whether it is a SQLite database in memory, as Django's test runner makes one."""
    return url.get_backend_name() == "sqlite" and (url.database == ":memory:" or url.query.get("mode") == "memory")


def is_pooled(wrapper: BaseDatabaseWrapper) -> bool:
    """Whether a pooler such as PgBouncer is between us and the server: for it Django has to be told this."""
    return bool(wrapper.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS"))


def _postgresql(wrapper: BaseDatabaseWrapper) -> URL:
    # Django's own reading of NAME, USER, OPTIONS and the rest.
    given = cast("dict[str, object]", wrapper.get_connection_params())
    name, user, password, host, port = (
        str(given.pop(key, "") or "") for key in ("dbname", "user", "password", "host", "port")
    )
    query: dict[str, str | tuple[str, ...]] = {
        key: str(value) for key, value in given.items() if key not in _DJANGOS_OWN and value is not None
    }
    hosts, ports = host.split(","), port.split(",")
    is_plain = len(hosts) == 1 and not host.startswith("/")
    if not is_plain:
        ports = ports if len(ports) == len(hosts) else ports * len(hosts)
        query["host"] = tuple(f"{one}:{its}" if its else one for one, its in zip(hosts, ports, strict=True))
    return URL.create(
        "postgresql",
        username=user or None,
        password=password or None,
        host=(host or None) if is_plain else None,
        port=int(port) if is_plain and port else None,
        database=name or None,
        query=query,
    )


def _sqlite(wrapper: BaseDatabaseWrapper) -> URL:
    name = str(wrapper.settings_dict["NAME"])
    if not name.startswith("file:"):
        return URL.create("sqlite", database=name if name == ":memory:" else str(Path(name).absolute()))
    path, _, query = name.partition("?")
    return URL.create("sqlite", database=path, query={**dict(parse_qsl(query)), "uri": "true"})


def _mysql(wrapper: BaseDatabaseWrapper) -> URL:
    given = cast("dict[str, object]", wrapper.get_connection_params())
    port = given.get("port")
    query = {key: str(given[key]) for key in _MYSQL_WAY if given.get(key) is not None}
    ssl = given.get("ssl")
    if isinstance(ssl, Mapping):
        ssl = cast("Mapping[str, object]", ssl)
        query |= {f"ssl_{key}": str(ssl[key]) for key in ("ca", "cert", "key") if ssl.get(key) is not None}
    return URL.create(
        "mysql",
        username=_text(given.get("user")),
        password=_text(given.get("password")),
        # Without a host Django's driver would take its own default, a socket; PyMySQL's is this.
        host=_text(given.get("host")) or "localhost",
        port=port if isinstance(port, int) else None,
        database=_text(given.get("database")),
        query=query,
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)
