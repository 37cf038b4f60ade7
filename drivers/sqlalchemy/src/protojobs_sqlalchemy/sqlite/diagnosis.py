"""What to look at in a SQLite file: its log, its disk, its lock."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection

from protojobs.port.diagnosis import Finding, Severity, judged
from protojobs_sqlalchemy.dialect import Look

__all__ = ["file_system_of", "looks"]

WAL_BYTES_MAX = 256 * 1024 * 1024  # reading gets slower with it; it is 4 MiB where nobody holds a snapshot open
FREE_BYTES_MIN = 256 * 1024 * 1024
_LOCK_S = 1.0  # a turn of a worker takes 3 ms
_BUSY_MIN_MS = 1_000
# Locks and shared memory, which a write-ahead log needs, do not work between the machines that mount these.
_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "beegfs", "davfs"}
    | {"fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.rclone", "fuse.davfs2"}
)
_MOUNTS = Path("/proc/self/mounts")


def looks(*, is_ours: bool) -> list[Look]:
    """The looks, in order. `is_ours`: the engine is no application's."""
    return [_journal, _file, lambda conn: _waiting(conn, is_ours=is_ours), _lock]


def _journal(conn: Connection) -> Iterator[Finding]:
    mode = str(conn.exec_driver_sql("PRAGMA journal_mode").scalar())
    is_wal = mode.lower() == "wal"
    yield judged(
        "journal_mode",
        f"journal_mode is {mode.upper()}.",
        is_good=is_wal,
        bad=Severity.ERROR,
        why="With a write-ahead log reading and writing do not wait for each other; a push is synced all the same.",
        mend="PRAGMA journal_mode = WAL; on your own engine's connections.",
    )


def _waiting(conn: Connection, *, is_ours: bool) -> Iterator[Finding]:
    """How an application's own transactions wait for the write lock; ours have a patience of their own."""
    if is_ours:
        return
    busy_ms = int(conn.exec_driver_sql("PRAGMA busy_timeout").scalar() or 0)
    is_short = busy_ms < _BUSY_MIN_MS
    yield judged(
        "busy_timeout",
        f"busy_timeout of your engine's connections is {busy_ms} ms.",
        is_good=not is_short,
        why="Your own transactions fail with `database is locked` when a worker writes for longer than that.",
        mend='create_engine(url, connect_args={"timeout": 5})',
    )


def _file(conn: Connection) -> Iterator[Finding]:
    path = _path(conn)
    yield _writable(path)
    system = file_system_of(path, _MOUNTS.read_text("utf-8", "replace") if _MOUNTS.exists() else "")
    is_network = system in _NETWORK
    yield judged(
        "file_system",
        f"The file lies on {system or 'a file system of unknown kind'}.",
        is_good=not is_network,
        bad=Severity.ERROR,
        why="On a network file system SQLite's locks and shared memory do not hold: two machines spoil the file.",
        mend="Put the file on a local disk, or use PostgreSQL, MariaDB or Redis for several machines.",
    )
    free = shutil.disk_usage(path.parent).free
    is_full = free < FREE_BYTES_MIN
    yield judged(
        "disk_space",
        f"{_mib(free)} are free where the file lies.",
        is_good=not is_full,
        why="Without space no push is taken and no result is stored.",
        mend="Make room; protojobs prune, then VACUUM, gives back what finished jobs took.",
    )
    log = path.with_name(f"{path.name}-wal")
    size = log.stat().st_size if log.exists() else 0
    is_long = size > WAL_BYTES_MAX
    yield judged(
        "wal_size",
        f"The write-ahead log holds {_mib(size)}.",
        is_good=not is_long,
        why="It is emptied only while nobody reads an older state: some connection keeps a transaction open.",
        mend="End that transaction, then: PRAGMA wal_checkpoint(TRUNCATE);",
    )


def _writable(path: Path) -> Finding:
    is_writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    return judged(
        "writable",
        f"The file and its folder can{'' if is_writable else 'not'} be written to.",
        is_good=is_writable,
        bad=Severity.ERROR,
        why="SQLite makes its log beside the file, so it writes into the folder too.",
        mend=f"Give this user the right to write {path} and {path.parent}.",
    )


def _lock(conn: Connection) -> Iterator[Finding]:
    """Whether the write lock can be had. Nothing is written under it."""
    with closing(sqlite3.connect(_path(conn), timeout=_LOCK_S, isolation_level=None)) as raw:
        try:
            raw.execute("BEGIN IMMEDIATE")
            raw.execute("ROLLBACK")
            what = ""
        except sqlite3.OperationalError as error:
            what = str(error)
    yield judged(
        "write_lock",
        f"The write lock was not to be had for {_LOCK_S:g} s: {what}." if what else "The write lock is free.",
        is_good=not what,
        bad=Severity.ERROR,
        why="There is one for the whole file. A transaction that stays open holds up every push and every worker.",
        mend="Commit sooner, most often in a job that works on this file; `fuser FILE` shows who has it open.",
    )


def _path(conn: Connection) -> Path:
    rows = conn.exec_driver_sql("PRAGMA database_list").fetchall()
    return Path(next(str(row[2]) for row in rows if row[1] == "main")).resolve()


def file_system_of(path: Path, mounts: str) -> str:
    """The kind of file system that holds `path`, by the text of /proc/self/mounts; empty where that is unknown."""
    longest, kind = -1, ""
    for line in mounts.splitlines():
        words = line.split(" ")
        if len(words) < 3:
            continue
        mount = words[1].replace("\\040", " ")
        if path.is_relative_to(mount) and len(mount) >= longest:  # of two at one path the later one lies on top
            longest, kind = len(mount), words[2]
    return kind


def _mib(size: int) -> str:
    return f"{size / 1024 / 1024:,.1f} MiB"
