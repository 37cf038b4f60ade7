"""Failed jobs grouped by what they failed of, on MariaDB and MySQL."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, text

from protojobs_sqlalchemy.dialect import FailedAlike
from protojobs_sqlalchemy.observing.failures import GROUPS_MAX
from protojobs_sqlalchemy.tables.naming import Names
from protojobs_sqlalchemy.tables.types import StoredTime

__all__ = ["failed_alike"]

_AT_ONCE = 100  # groups in one statement

# They jump by themselves: `Using index for group-by`. But they look nothing up in a derived table by the
# row outside of it, so that each group's numbers are a query of their own, many of them in one statement.
_GROUP_BY = f"""
SELECT fingerprint, first_at FROM (
    SELECT fingerprint, MIN(failed_at) AS first_at, MAX(failed_at) AS last_at
    FROM @failed_jobs GROUP BY fingerprint LIMIT {GROUPS_MAX}
) AS alike ORDER BY last_at DESC LIMIT :groups
"""
_LAST = """
(SELECT id, :place_{0} AS place, (
    SELECT COUNT(*) FROM (SELECT 1 FROM @failed_jobs WHERE fingerprint = :alike_{0} LIMIT :counted) AS few) AS number
FROM @failed_jobs WHERE fingerprint = :alike_{0} ORDER BY failed_at DESC, id DESC LIMIT 1)
"""


def failed_alike(conn: Connection, names: Names, values: Mapping[str, int]) -> list[FailedAlike]:
    """What `Dialect.failed_alike` asks for."""
    first = conn.execute(
        text(names.sql(_GROUP_BY)).columns(first_at=StoredTime), {"groups": values["groups"]}
    ).fetchall()
    alike, last = list[FailedAlike](), names.sql(_LAST)
    for start in range(0, len(first), _AT_ONCE):
        part = first[start : start + _AT_ONCE]
        parameters: dict[str, object] = {"counted": values["counted"]}
        for place, row in enumerate(part):
            parameters |= {f"alike_{place}": row.fingerprint, f"place_{place}": place}
        union = " UNION ALL ".join(last.format(place) for place in range(len(part)))
        for row in conn.execute(text(union), parameters):
            group = part[int(row.place)]
            alike.append(FailedAlike(group.fingerprint, group.first_at, row.id, row.number))
    return alike
