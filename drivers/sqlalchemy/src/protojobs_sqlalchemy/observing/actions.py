"""The audit log: one row for each thing that a person did."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import asdict
from sqlalchemy import Connection, select

from protojobs.errors import OptionInvalid, shown
from protojobs.port import rules
from protojobs.port.observing import ActionNote, ActionPage
from protojobs_sqlalchemy.dialect import Dialect
from protojobs_sqlalchemy.tables.rows import values_of
from protojobs_sqlalchemy.tables.types import is_job_id
from protojobs_sqlalchemy.verbs.settling import storable

__all__ = ["action_row", "actions"]


def action_row(action: ActionNote) -> Mapping[str, object]:
    """The row of an action."""
    if not is_job_id(action.id):
        raise OptionInvalid(
            f"{shown(action.id, 60)} is no UUID in lower case.", mend="Use protojobs.entropy.fresh_id()."
        )
    return {name: storable(value) if isinstance(value, str) else value for name, value in asdict(action).items()}


def actions(conn: Connection, dialect: Dialect, limit: int, cursor: str | None) -> ActionPage:
    """A page, newest id first."""
    rules.check_cursor(cursor)
    audit = dialect.tables.audit
    query = select(audit).order_by(audit.c.id.desc()).limit(limit + 1)
    rows = conn.execute(query.where(audit.c.id < cursor) if cursor else query).fetchall()
    page = tuple(ActionNote(**values_of(row)) for row in rows[:limit])
    return ActionPage(actions=page, cursor=page[-1].id if len(rows) > limit else None)
