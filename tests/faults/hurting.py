"""Faults that strike the store: killed, frozen, full, locked."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

from .crew import Crew
from .stage import Stage

__all__ = ["crash_store", "hold_write_lock"]

FULL_S = 3.0
LOCKED_S = 4.0  # longer than a lease of 3 s


def crash_store(stage: Stage, crew: Crew) -> None:
    """Kill the server, which comes back at once; on SQLite a full disk, then another process's write lock."""
    began = time.monotonic()
    if stage.server is not None:
        stage.server.crash()
        crew.note("outage", began)
    elif stage.disk is not None:
        with stage.disk.full():
            time.sleep(FULL_S)
        crew.note("outage", began)
        hold_write_lock(stage, crew, LOCKED_S)


def hold_write_lock(stage: Stage, crew: Crew, seconds: float) -> None:
    """Somebody has a write transaction open on SQLite's file, and takes their time."""
    assert stage.disk is not None
    with closing(sqlite3.connect(stage.disk.path / "jobs.db", timeout=30, isolation_level=None)) as connection:
        connection.execute("begin immediate")
        began = time.monotonic()
        time.sleep(seconds)
        connection.execute("rollback")
    crew.note("outage", began)
