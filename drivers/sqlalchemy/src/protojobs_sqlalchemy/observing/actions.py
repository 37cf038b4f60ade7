"""The audit log: a line for each thing that a person did."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import asdict
from sqlalchemy import Connection, select

from protojobs.errors import OptionInvalid, shown
from protojobs.port.observing import ActionNote, ActionPage
from protojobs_sqlalchemy.tables.ids import canonical
from protojobs_sqlalchemy.tables.tables import audit
from protojobs_sqlalchemy.verbs.bounds import bad_cursor
from protojobs_sqlalchemy.verbs.inserting import inserts
from protojobs_sqlalchemy.verbs.settling import storable

__all__ = ["actions", "insert_action", "row_of"]


def row_of(action: ActionNote) -> Mapping[str, object]:
    """The row of an action."""
    if not canonical(action.id):
        raise OptionInvalid(
            f"{shown(action.id, 60)} is no UUID in lower case.", mend="Use protojobs.entropy.fresh_id()."
        )
    return {name: storable(value) if isinstance(value, str) else value for name, value in asdict(action).items()}


def insert_action(conn: Connection, row: Mapping[str, object]) -> None:
    """Store it, unless its id is there."""
    inserts(conn, audit, row)


def actions(conn: Connection, limit: int, cursor: str | None) -> ActionPage:
    """A page, newest id first."""
    if cursor is not None and not canonical(cursor):
        raise bad_cursor(cursor)
    query = select(audit, audit.c.count.label("number")).order_by(audit.c.id.desc()).limit(limit + 1)
    rows = conn.execute(query.where(audit.c.id < cursor) if cursor else query).fetchall()
    page = tuple(
        ActionNote(
            id=row.id,
            at=row.at,
            actor=row.actor,
            action=row.action,
            target=row.target,
            count=row.number,  # a row's `count` is what tuples have
            detail=row.detail,
            address=row.address,
        )
        for row in rows[:limit]
    )
    return ActionPage(actions=page, cursor=page[-1].id if len(rows) > limit else None)
