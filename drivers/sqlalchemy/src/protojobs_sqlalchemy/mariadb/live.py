"""The pending jobs of each lane on MariaDB and MySQL: jobs_ready is walked from lane to lane."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pymysql.cursors import Cursor
from sqlalchemy import Connection

from protojobs_sqlalchemy.mariadb.turn import raw_of, takes_blocks
from protojobs_sqlalchemy.tables.naming import Names

__all__ = ["walked"]

_IN_LANE = "FROM @jobs WHERE ready = line AND priority = level"

# MariaDB looks values up by an index where they come from a constant or a variable, not where they come from the row of
# an outer query: there it would read all that is ready, once for each row.
_WALK = f"""
BEGIN NOT ATOMIC
    DECLARE line VARCHAR(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;
    DECLARE level, place INT DEFAULT 0;
    SELECT MIN(ready) INTO line FROM @jobs WHERE ready > %(after)s;
    WHILE line IS NOT NULL AND place < %(most)s DO
        SELECT MAX(priority) INTO level FROM @jobs WHERE ready = line;
        WHILE level IS NOT NULL DO
            SELECT line, level, (SELECT MIN(available_at) {_IN_LANE}),
                   (SELECT COUNT(*) FROM (
                       SELECT 1 {_IN_LANE} AND available_at <= %(now)s LIMIT %(counted)s) AS due),
                   (SELECT COUNT(*) FROM (
                       SELECT 1 {_IN_LANE} AND available_at > %(now)s LIMIT %(counted)s) AS later);
            SELECT MAX(priority) INTO level FROM @jobs WHERE ready = line AND priority < level;
        END WHILE;
        SET place = place + 1;
        SELECT MIN(ready) INTO line FROM @jobs WHERE ready > line;
    END WHILE;
END
"""
# MySQL has no blocks outside of routines, so there each step is a statement.
_NEXT_NAME = "SELECT MIN(ready) FROM @jobs WHERE ready > %(line)s"
_FIRST_LEVEL = "SELECT MAX(priority) FROM @jobs WHERE ready = %(line)s"
_NEXT_LEVEL = "SELECT MAX(priority) FROM @jobs WHERE ready = %(line)s AND priority < %(level)s"
_IN_THIS_LANE = "FROM @jobs WHERE ready = %(line)s AND priority = %(level)s"
_COUNT = f"""
SELECT %(line)s, %(level)s, (SELECT MIN(available_at) {_IN_THIS_LANE}),
       (SELECT COUNT(*) FROM (SELECT 1 {_IN_THIS_LANE} AND available_at <= %(now)s LIMIT %(counted)s) AS due),
       (SELECT COUNT(*) FROM (SELECT 1 {_IN_THIS_LANE} AND available_at > %(now)s LIMIT %(counted)s) AS later)
"""

Lane = tuple[str, int, datetime, int, int]  # queue, priority, when its first job is due, due ones, later ones


def walked(conn: Connection, names: Names, bounds: Mapping[str, Any]) -> list[Lane]:
    """The lanes of the first `most` queues behind `after`, each side of `now` counted up to `counted`."""
    values = {**bounds, "now": bounds["now"].astimezone(UTC).replace(tzinfo=None)}
    with raw_of(conn).cursor() as cursor:
        lanes = _at_once(cursor, names, values) if takes_blocks(conn) else _step_by_step(cursor, names, values)
    return [
        (queue, level, first_at.replace(tzinfo=UTC), ready, later) for queue, level, first_at, ready, later in lanes
    ]


def _at_once(cursor: Cursor, names: Names, values: dict[str, Any]) -> list[Lane]:
    lanes: list[Lane] = []
    cursor.execute(names.sql(_WALK), values)
    while cursor.description:  # the block's own answer, at the end, has no rows
        lanes += cursor.fetchall()
        cursor.nextset()
    return lanes


def _step_by_step(cursor: Cursor, names: Names, values: dict[str, Any]) -> list[Lane]:
    lanes: list[Lane] = []
    line = values["after"]
    for _ in range(values["most"]):
        line = _one(cursor, names.sql(_NEXT_NAME), values | {"line": line})
        if line is None:
            break
        level = _one(cursor, names.sql(_FIRST_LEVEL), values | {"line": line})
        while level is not None:
            here = values | {"line": line, "level": level}
            cursor.execute(names.sql(_COUNT), here)
            lanes += cursor.fetchall()
            level = _one(cursor, names.sql(_NEXT_LEVEL), here)
    return lanes


def _one(cursor: Cursor, statement: str, values: dict[str, Any]) -> object:
    cursor.execute(statement, values)
    row = cursor.fetchone()
    return row[0] if row else None
