"""Failed jobs by what they failed of: groups found by jumping from one fingerprint to the next."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct
from sqlalchemy import Connection, text

from protojobs.observing import FailureGroup
from protojobs_sqlalchemy.conditions import is_mysql
from protojobs_sqlalchemy.failures import get_failed
from protojobs_sqlalchemy.types import StoredId, StoredTime, within_calendar

__all__ = ["groups"]

_GROUPS_MAX = 1_000  # that one call looks at
_AT_ONCE = 100  # groups in one statement on MariaDB and MySQL

_ALIKE = "FROM failed_jobs WHERE failed_jobs.fingerprint = alike.fingerprint"
_FIRST_AT = f"(SELECT min(failed_at) {_ALIKE})"
_JUMP = f"""
WITH RECURSIVE alike (fingerprint, place) AS (
    SELECT min(fingerprint), 1 FROM failed_jobs
    UNION ALL
    SELECT (SELECT min(fingerprint) FROM failed_jobs WHERE fingerprint > alike.fingerprint), place + 1
    FROM alike WHERE fingerprint IS NOT NULL AND place < {_GROUPS_MAX}
), latest AS (
    SELECT fingerprint, (SELECT max(failed_at) {_ALIKE}) AS last_at FROM alike WHERE fingerprint IS NOT NULL
    ORDER BY last_at DESC LIMIT :groups
)
SELECT fingerprint, {{first_at}} AS first_at,
       (SELECT id {_ALIKE} ORDER BY failed_at DESC, id DESC LIMIT 1) AS last_id,
       (SELECT count(*) FROM (SELECT 1 {_ALIKE} LIMIT :counted) AS few) AS number
FROM latest AS alike
"""
# MariaDB and MySQL jump by themselves: `Using index for group-by`. But they look nothing up in a derived table by the
# row outside of it, so that each group's numbers are a query of their own, many of them in one statement.
_GROUP_BY = f"""
SELECT fingerprint, first_at FROM (
    SELECT fingerprint, MIN(failed_at) AS first_at, MAX(failed_at) AS last_at
    FROM failed_jobs GROUP BY fingerprint LIMIT {_GROUPS_MAX}
) AS alike ORDER BY last_at DESC LIMIT :groups
"""
_LAST = """
(SELECT id, :place_{0} AS place, (
    SELECT COUNT(*) FROM (SELECT 1 FROM failed_jobs WHERE fingerprint = :alike_{0} LIMIT :counted) AS few) AS number
FROM failed_jobs WHERE fingerprint = :alike_{0} ORDER BY failed_at DESC, id DESC LIMIT 1)
"""


class _Group(Struct, frozen=True):
    fingerprint: str
    first_at: datetime
    last_id: str
    number: int  # counted up to one more than the bound


def groups(conn: Connection, limit: int, counted_max: int, chars_max: int | None) -> list[FailureGroup]:
    """The groups, the one that failed last first; in two statements, or a few more on MariaDB and MySQL."""
    find = _found_by_mysql if is_mysql(conn) else _found
    found = find(conn, {"groups": min(limit, _GROUPS_MAX), "counted": counted_max + 1})
    last = {failure.id: failure for failure in get_failed(conn, [group.last_id for group in found], chars_max)}
    found.sort(key=lambda group: (last[group.last_id].failed_at, group.last_id), reverse=True)
    return [
        FailureGroup(
            fingerprint=group.fingerprint,
            count=min(group.number, counted_max),
            first_failed_at=group.first_at,
            last=last[group.last_id],
            is_capped=group.number > counted_max,
        )
        for group in found
    ]


def _found(conn: Connection, bounds: dict[str, int]) -> list[_Group]:
    first_at = within_calendar(_FIRST_AT) if conn.dialect.name == "postgresql" else _FIRST_AT
    jump = text(_JUMP.format(first_at=first_at)).columns(first_at=StoredTime, last_id=StoredId)
    return [_Group(row.fingerprint, row.first_at, row.last_id, row.number) for row in conn.execute(jump, bounds)]


def _found_by_mysql(conn: Connection, bounds: dict[str, int]) -> list[_Group]:
    first = conn.execute(text(_GROUP_BY).columns(first_at=StoredTime), {"groups": bounds["groups"]}).fetchall()
    found: list[_Group] = []
    for start in range(0, len(first), _AT_ONCE):
        part = first[start : start + _AT_ONCE]
        values: dict[str, object] = {"counted": bounds["counted"]}
        for place, row in enumerate(part):
            values |= {f"alike_{place}": row.fingerprint, f"place_{place}": place}
        union = " UNION ALL ".join(_LAST.format(place) for place in range(len(part)))
        for row in conn.execute(text(union), values):
            group = part[int(row.place)]
            found.append(_Group(group.fingerprint, group.first_at, row.id, row.number))
    return found
