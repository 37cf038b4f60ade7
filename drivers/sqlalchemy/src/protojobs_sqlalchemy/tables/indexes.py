"""The indexes that the migrations make, against those that the database has."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from sqlalchemy import Connection, inspect

from protojobs.port.diagnosis import Finding, Severity
from protojobs_sqlalchemy.tables.naming import Names

__all__ = ["expected_indexes", "missing_indexes", "names_of_others", "other_indexes"]

_SAID = re.compile(
    r"CREATE (?:UNIQUE )?INDEX (?:IF NOT EXISTS )?(\w+) ON (?:\"?\w+\"?\.)?(\w+)"
    r"|DROP INDEX (?:IF EXISTS )?(?:\"?\w+\"?\.)?(\w+)",
    re.IGNORECASE,
)
_HOT = "jobs"  # every index here is written to twice or more for each job


def expected_indexes(script: str) -> Mapping[str, str]:
    """Index -> its table, as the text of a whole migration leaves them."""
    made: dict[str, str] = {}
    for name, table, dropped in _SAID.findall(script):
        if dropped:
            made.pop(dropped, None)
        else:
            made[name] = table
    return made


def missing_indexes(conn: Connection, names: Names, script: str) -> Iterator[Finding]:
    """Indexes of ours that are not there: somebody dropped them, or a migration was broken off by hand."""
    expected, missing = expected_indexes(script), list[str]()
    by_table: dict[str, set[str]] = defaultdict(set)
    for name, table in expected.items():
        by_table[table].add(name)
    for table, wanted in by_table.items():
        missing += sorted(wanted - _known(conn, names, table))
    if not missing:
        what = f"All {len(expected)} indexes are there."
        yield Finding(code="indexes_missing", severity=Severity.OK, what=what)
        return
    statements = {name: line for line in script.split(";") for name in missing if f"INDEX {name} ON " in line}
    yield Finding(
        code="indexes_missing",
        severity=Severity.ERROR,
        what=f"Indexes are missing: {', '.join(missing)}.",
        why="What they serve reads all jobs instead: it gets slower with every job that is stored.",
        mend=f"{'; '.join(' '.join(statement.split()) for statement in statements.values())};",
    )


def names_of_others(conn: Connection, names: Names, script: str) -> list[str]:
    """Indexes on the jobs table that no migration of ours made."""
    return sorted(_known(conn, names, names.bare(_HOT)) - set(expected_indexes(script)))


def other_indexes(conn: Connection, names: Names, script: str) -> Iterator[Finding]:
    """What other indexes cost. Which of them are used, only PostgreSQL tells."""
    if others := names_of_others(conn, names, script):
        yield Finding(
            code="indexes_other",
            severity=Severity.NOTE,
            what=f"The table {names.quoted(_HOT)} has indexes that are not protojobs's: {', '.join(others)}.",
            why="Each is written to with every push, claim and settlement.",
            mend="Drop those that no query of yours needs.",
        )


def _known(conn: Connection, names: Names, table: str) -> set[str]:
    return {str(index["name"]) for index in inspect(conn).get_indexes(table, names.schema)}
