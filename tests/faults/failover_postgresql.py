"""A PostgreSQL primary and a standby that may follow it: started, parted, killed for good, promoted."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

import servers

__all__ = ["Pair", "pair"]

WITHIN_S = 20.0
SETTINGS = {  # as servers.postgresql_from: a standby must allow as many connections as its primary
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": 300,
    "shared_buffers": "64MB",
    "jit": "off",
}


@contextlib.contextmanager
def pair() -> Iterator[Pair]:
    """A primary with a standby, both durable; the primary does not wait for the standby."""
    with servers.started("postgresql", is_durable=True) as primary:
        started = Pair(primary)
        try:
            started.add_standby(servers.free_port())
            yield started
        finally:
            for server in started.all:
                with contextlib.suppress(servers.Unavailable):
                    server.stop()


class Pair:
    """The two of them; who is which changes."""

    def __init__(self, primary: servers.Server) -> None:
        self.primary = primary
        self.standby: servers.Server | None = None
        self.all = [primary]
        self._ports = [_port(primary)]

    def url(self, database: str) -> str:
        """Leads to whichever of the two takes writes."""
        return f"postgresql://postgres@{','.join(f'127.0.0.1:{port}' for port in self._ports)}/{database}"

    def add_standby(self, port: int = 0) -> None:
        """Copy the primary, and let the copy follow it; without a port on that of the one that is gone."""
        port = port or next(port for port in self._ports if port != _port(self.primary))
        if port not in self._ports:
            self._ports.append(port)
        source = _url(_port(self.primary))
        programs = Path(str(_asked(source, "select setting from pg_config where name = 'BINDIR'")))
        with servers.scratch_folder("postgresql") as scratch:
            environment = servers.clean_environment(scratch)
            copy = [programs / "pg_basebackup", "-D", scratch / "data", "-d", source, "-R", "-c", "fast", "--no-sync"]
            servers.run(copy, environment)
            command: list[object] = [programs / "postgres", "-D", scratch / "data", "-c", f"port={port}"]
            command += [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
            self.standby = servers.launch("postgresql", command, environment, scratch, _url(port), self.primary.source)
        self.all.append(self.standby)
        self._until_it_is("async")

    def be_synchronous(self, level: str = "on") -> None:
        """From now on a commit waits until the standby has it on disk (`on`), or shows it as well (`remote_apply`)."""
        url = _url(_port(self.primary))
        _set(url, "synchronous_commit", level)
        _set(url, "synchronous_standby_names", "*")
        self._until_it_is("sync")

    def _until_it_is(self, state: str) -> None:
        query = "select sync_state from pg_stat_replication where state = 'streaming'"
        url = _url(_port(self.primary))
        servers.until(lambda: _asked(url, query) == state, f"the standby is not {state}", limit=WITHIN_S)

    def part(self) -> None:
        """The standby hears no more of its primary. (A frozen one would still read what is on its way to it.)"""
        assert self.standby is not None
        url = self.standby.url
        _set(url, "primary_conninfo", "")
        servers.until(
            lambda: _asked(url, "select count(*) from pg_stat_wal_receiver") == 0, "still in touch", limit=WITHIN_S
        )

    def kill_primary(self) -> None:
        """kill -9 for all its processes, and nobody starts it again."""
        pids = [self.primary.pid, *servers.descendants(self.primary.pid)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        servers.until(lambda: not any(servers.is_alive(pid) for pid in pids), "it lives on", limit=WITHIN_S)

    def promote(self) -> None:
        """Make the standby the primary; it has no standby of its own, so it waits for none."""
        assert self.standby is not None
        _set(self.standby.url, "synchronous_standby_names", "")
        assert _asked(self.standby.url, "select pg_promote(wait => true)") is True
        self.primary, self.standby = self.standby, None


def _url(port: int) -> str:
    return f"postgresql://postgres@127.0.0.1:{port}/postgres"


def _port(server: servers.Server) -> int:
    return urlsplit(server.url).port or 5432


def _set(url: str, name: str, value: str) -> None:
    servers.execute(url, f"alter system set {name} = '{value}'", "select pg_reload_conf()")


def _asked(url: str, query: str) -> object:
    with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
        row = connection.execute(query).fetchone()  # pyright: ignore[reportArgumentType, reportCallIssue]
    return row[0] if row else None
