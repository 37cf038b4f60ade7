"""From a URL to an engine of our own: which DBAPI, which limits, and what to say when it cannot be."""

from __future__ import annotations

import inspect
import logging
import os
from pathlib import Path

from sqlalchemy import URL, Engine, NullPool, create_engine
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from protojobs.errors import ConfigurationError, DriverNotFound, OptionInvalid, did_you_mean, one_line
from protojobs.port import urls
from protojobs_sqlalchemy.connecting.hosts import hosts_of, read_url, shown, with_hosts_apart

__all__ = ["archive_of", "check_engine", "make_engine", "make_sessions_engine", "masked", "parse", "same_address"]

# scheme -> (the DBAPI that the driver runs on, the extra that brings it)
_DBAPIS = {
    "sqlite": ("sqlite+pysqlite", "sqlite"),
    "postgresql": ("postgresql+psycopg", "postgresql"),
    "mysql": ("mysql+pymysql", "mysql"),
    "mariadb": ("mariadb+pymysql", "mysql"),
}
_DRIVERS = {"pysqlite", "psycopg", "pymysql"}
_SQLITE_MIN = (3, 35, 0)  # UPDATE ... FROM and RETURNING
_CONNECT_S = 5  # for each host
_UNACKNOWLEDGED_MS = 10_000
_SQLITE = {"timeout": 0}  # the dialect waits for the write lock, faster than SQLite's own handler
_MARIADB: dict[str, object] = {"connect_timeout": _CONNECT_S, "charset": "utf8mb4"}
# Told to SQLAlchemy, which would else put each connection that comes back to the pool to the server's own: a step takes
# a lock and then looks what has been committed since.
_MARIADB_LEVEL = "READ COMMITTED"
_SESSIONS_OVERFLOW = 25  # sessions of `driver.begin()` at the same time, beyond the five whose connections stay
_DAILY = "daily"
_log = logging.getLogger("protojobs.sqlalchemy")


def masked(url: URL | str) -> str:
    """The URL without its password, for people and logs."""
    if isinstance(url, str):
        return urls.masked(url)
    url = url.set(drivername=url.get_backend_name())
    text = shown(url) if url.drivername == "postgresql" else url.render_as_string(hide_password=True)
    return urls.masked(text)


def parse(text: str | URL) -> URL:
    """The URL that the driver connects to, with the DBAPI of its own choice in it."""
    if isinstance(text, str):
        urls.check_url(text)
    try:
        url = read_url(text)
        url.port  # noqa: B018 (make_url reads it lazily in some versions: a wrong port shall show here)
    except (ArgumentError, ValueError) as error:
        raise ConfigurationError(
            f'"{one_line(masked(str(text)))}" is not a database URL.',
            mend=f'Write one like "postgresql://user@localhost/app" or "sqlite:///jobs.db". {urls.ENCODE}',
        ) from (None if "@" in str(text) else error)  # which quotes a piece of it
    scheme = url.get_backend_name()
    if scheme not in _DBAPIS:
        raise DriverNotFound(
            f'The SQLAlchemy driver does not know the scheme "{one_line(scheme)}".',
            mend=f"It knows {', '.join(_DBAPIS)}.",
        )
    _say_other_dbapi(url, scheme)
    url = url.set(drivername=_DBAPIS[scheme][0])
    if scheme == "postgresql":
        return with_hosts_apart(url)
    if "," in (url.host or ""):
        raise ConfigurationError(
            f"{one_line(masked(url))} names several hosts, which only PostgreSQL's library can follow.",
            mend="Name one that leads to the primary: a proxy, a floating address or a DNS name.",
        )
    return _file_url(url) if scheme == "sqlite" else url


def _say_other_dbapi(url: URL, scheme: str) -> None:
    """An application shares its URL with us, and its library need not be ours: said, since a pool's options differ."""
    asked, ours = url.drivername.partition("+")[2], _DBAPIS[scheme][0].partition("+")[2]
    if asked not in ("", ours):
        _log.warning("%s+%s:// is read as %s://: protojobs connects by %s", scheme, asked, scheme, ours)


def archive_of(url: URL, option: str | None = None) -> tuple[URL, bool]:
    """The URL without the option `archive`, and whether completed jobs go into the archive; `option` is given apart."""
    value = url.query.get("archive", option)
    if value is None:
        return url, False
    if value != _DAILY or (option is not None and option != value):
        raise OptionInvalid(
            f"archive={value if value != _DAILY else option} is not known.",
            mend=f"Write archive={_DAILY}, or leave it out.",
        )
    if url.get_backend_name() != "postgresql":
        raise OptionInvalid(
            f"{masked(url)}: only PostgreSQL has an archive.", mend="Leave the option out: prune deletes what is old."
        )
    return url.difference_update_query(["archive"]), True


def _file_url(url: URL) -> URL:
    """A SQLite URL whose path is absolute, so that a later change of folder does not open another database."""
    path = url.database or ""
    if url.host:
        raise ConfigurationError(
            f"{one_line(masked(url))} has a slash too few: the file would be a host, and SQLite has none.",
            mend=f'Write "sqlite:///{one_line(url.host)}"; a path from the root has four slashes.',
        )
    if path in ("", ":memory:") or ":memory:" in path or "mode=memory" in str(url):
        raise ConfigurationError(
            "SQLite in memory is refused: every connection would see a database of its own.",
            mend='Use a file ("sqlite:///jobs.db"), or the memory driver ("memory://").',
        )
    if path.startswith("file:"):
        return url
    file = Path(path).absolute()
    if not file.parent.is_dir():
        folder, name = one_line(str(file.parent)), one_line(file.name)
        raise ConfigurationError(
            f'The folder "{folder}" of the SQLite database "{name}" does not exist.', mend="Make it."
        )
    return url.set(database=str(file))


def make_engine(url: URL, *, timeout: float, is_pooled: bool) -> Engine:
    """An engine for the driver's steps, that has opened nothing yet, and pools nothing (pools.py does).

    No call over it takes longer than about `timeout` seconds.
    """
    scheme = url.get_backend_name()
    try:
        if scheme == "sqlite":
            engine = create_engine(url, connect_args=_SQLITE, poolclass=NullPool)
            _check_sqlite_version(engine)
            return engine
        if scheme == "postgresql":
            arguments = _postgresql_arguments(url, timeout, is_pooled=is_pooled)
            return create_engine(url, connect_args=arguments, poolclass=NullPool)
        arguments = {**_MARIADB, "read_timeout": timeout, "write_timeout": timeout}
        engine = create_engine(url, connect_args=arguments, poolclass=NullPool, isolation_level=_MARIADB_LEVEL)
        _check_options(engine)
        return engine
    except (ImportError, NoSuchModuleError) as error:
        extra = _DBAPIS[scheme][1]
        raise DriverNotFound(
            f'{scheme} needs the module "{url.get_driver_name()}", which is not installed.',
            mend=f'Type: pip install "protojobs[{extra}]"',
        ) from error
    except (TypeError, ValueError, ArgumentError) as error:
        raise ConfigurationError(f"The options of {masked(url)} are not understood: {error}.") from error


def _check_options(engine: Engine) -> None:
    """Raise ConfigurationError for an option of the URL that PyMySQL does not know, before it meets a connection."""
    _, options = engine.dialect.create_connect_args(engine.url)
    arguments = inspect.signature(engine.dialect.loaded_dbapi.connect).parameters
    for name in options:
        if name not in arguments:
            raise ConfigurationError(
                f'{one_line(masked(engine.url))} has an option that there is not: "{one_line(name)}".',
                mend=did_you_mean(name, arguments),
            )


def make_sessions_engine(url: URL, *, is_pooled: bool) -> Engine:
    """An engine for the application's own SQL on the same database: with its own planner, and without time limits."""
    scheme = url.get_backend_name()
    if scheme == "sqlite":
        return create_engine(url, connect_args=_SQLITE, max_overflow=_SESSIONS_OVERFLOW)
    if scheme == "postgresql":
        arguments = _lasting(url) | ({"prepare_threshold": None} if is_pooled else {})
        return create_engine(url, connect_args=arguments, pool_pre_ping=True, max_overflow=_SESSIONS_OVERFLOW)
    return create_engine(
        url,
        connect_args=_MARIADB,
        pool_pre_ping=True,
        max_overflow=_SESSIONS_OVERFLOW,
        isolation_level=_MARIADB_LEVEL,
    )


def _lasting(url: URL) -> dict[str, object]:
    """What all our connections to PostgreSQL are opened with beside what the URL says, which counts more."""
    arguments: dict[str, object] = {
        "connect_timeout": _CONNECT_S,
        "application_name": "protojobs",
        # A peer that vanished is noticed by the kernel ...
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": _UNACKNOWLEDGED_MS,
    }
    return {name: value for name, value in arguments.items() if name not in url.query}


def _postgresql_arguments(url: URL, timeout: float, *, is_pooled: bool) -> dict[str, object]:
    """What connections for steps are opened with."""
    arguments = _lasting(url)
    if "tcp_user_timeout" not in url.query:
        arguments["tcp_user_timeout"] = int(timeout * 1000)
    if is_pooled:
        # PgBouncer hands the next statement to another session: nothing may be kept in one.
        return arguments | {"prepare_threshold": None}
    # ... and a client that froze inside a transaction by the server, which then frees its locks.
    limit = int(timeout * 1000)
    settings = {
        "statement_timeout": limit,
        "idle_in_transaction_session_timeout": limit,
        "timezone": "UTC",
        # Every statement here walks an index in its order. A plan that was cached while the table was small, or made
        # before its statistics were, must do so too.
        "enable_seqscan": "off",
        "enable_bitmapscan": "off",
        "enable_sort": "off",
        # ... and planning one of the hot statements takes longer than running it for one job.
        "plan_cache_mode": "force_generic_plan",
        # To the server what is switched off looks so dear that it would compile each statement first: for two seconds.
        "jit": "off",
    }
    ours = [f"-c {name}={value}" for name, value in settings.items()]
    # Theirs come last, so they win. Named here, ours would hide the environment's from PostgreSQL's library.
    return arguments | {"options": " ".join([*ours, *(_options(url) or [os.environ.get("PGOPTIONS", "")])]).rstrip()}


def _options(url: URL) -> list[str]:
    """The settings that a PostgreSQL URL asks of the server, such as a search_path."""
    options = url.query.get("options", ())
    return [options] if isinstance(options, str) else list(options)


def _check_sqlite_version(engine: Engine) -> None:
    sqlite = engine.dialect.loaded_dbapi
    if sqlite.sqlite_version_info < _SQLITE_MIN:
        raise ConfigurationError(
            f"This Python brings SQLite {sqlite.sqlite_version}.",
            mend=f"protojobs needs {'.'.join(map(str, _SQLITE_MIN))} or newer.",
        )


def check_engine(engine: Engine) -> None:
    """Raise where an application's engine will not do, and say which ones will."""
    scheme, driver = engine.url.get_backend_name(), engine.dialect.driver
    if scheme not in _DBAPIS or driver not in _DRIVERS:
        raise OptionInvalid(
            f"An engine on {scheme}+{driver} will not do.",
            mend="Give one on sqlite+pysqlite, postgresql+psycopg, mysql+pymysql or mariadb+pymysql, or just its URL.",
        )
    if scheme == "sqlite":
        _check_sqlite_version(engine)
        if engine.url.database in (None, "", ":memory:"):
            _file_url(engine.url)


def same_address(one: URL, other: URL) -> bool:
    """Whether two URLs plainly lead to the same tables, whichever DBAPI they name. If not, the database can tell."""
    schemes = {one.get_backend_name().replace("mariadb", "mysql"), other.get_backend_name().replace("mariadb", "mysql")}
    if len(schemes) > 1:
        return False
    if schemes == {"sqlite"}:
        ours, theirs = Path(one.database or ""), Path(other.database or "")
        return ours.absolute() == theirs.absolute() or (ours.exists() and theirs.exists() and ours.samefile(theirs))
    if schemes == {"postgresql"}:
        # The user and the options may choose the schema.
        return (_addresses(one), one.database, one.username, _options(one)) == (
            _addresses(other),
            other.database,
            other.username,
            _options(other),
        )
    return (one.host, one.port or 3306, one.database) == (other.host, other.port or 3306, other.database)


def _addresses(url: URL) -> set[tuple[str, int]]:
    return {(host, port or 5432) for host, port in hosts_of(url)}
