"""The tables say which releases can work on them: those that know the version `readable_from`, or a later one."""

from __future__ import annotations

import sqlalchemy as sa

from protojobs_sqlalchemy.migrations.making import drop_column, make_column, note_readable_from
from protojobs_sqlalchemy.tables.naming import VERSION_TABLE

revision = "0005"
down_revision = "0004"
readable_from = "0005"
step_back_loses = ""


def upgrade() -> None:
    make_column(VERSION_TABLE, sa.Column("readable_from", sa.String(32)))
    note_readable_from(readable_from)


def downgrade() -> None:
    drop_column(VERSION_TABLE, "readable_from")
