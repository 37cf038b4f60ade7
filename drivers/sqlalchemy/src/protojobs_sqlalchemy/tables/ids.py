"""Job ids: UUIDs in their one canonical spelling, since two databases keep them as 16 bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sqlalchemy import Connection

__all__ = ["canonical", "fits", "known"]

canonical = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch


def fits(conn: Connection, job_id: str) -> bool:
    """Whether the column can be asked for it: SQLite's holds any text, which a foreign hand may have written."""
    return conn.dialect.name == "sqlite" or canonical(job_id) is not None


def known(ids: Iterable[str]) -> list[str]:
    """Those that can be in the store at all, each once; every other spelling is simply missing."""
    return [job_id for job_id in dict.fromkeys(ids) if canonical(job_id)]
