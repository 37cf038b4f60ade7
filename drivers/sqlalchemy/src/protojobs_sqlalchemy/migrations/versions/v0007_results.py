"""What completed jobs have returned. A column and not a table: a result goes with its job, whatever deletes that."""

from __future__ import annotations

import sqlalchemy as sa

from protojobs_sqlalchemy.migrations.making import drop_column, is_on, make_column, note_readable_from
from protojobs_sqlalchemy.tables.types import LongText

revision = "0007"
down_revision = "0006"
readable_from = "0005"
step_back_loses = "the results of completed jobs"
losing = ("SELECT 1 FROM @jobs WHERE result IS NOT NULL LIMIT 1",)
losing_on_postgresql = (*losing, "SELECT 1 FROM @jobs_archive WHERE result IS NOT NULL LIMIT 1")


def upgrade() -> None:
    for table in _tables():
        make_column(table, sa.Column("result", LongText))
    note_readable_from(readable_from)


def downgrade() -> None:
    for table in _tables():
        drop_column(table, "result")


def _tables() -> tuple[str, ...]:
    return ("jobs", "jobs_archive") if is_on("postgresql") else ("jobs",)
