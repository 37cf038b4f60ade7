"""What no driver writes can be found: jobs_finished has every job that is neither pending nor processing.

On MariaDB and MySQL also those that are processing and held by nobody.
"""

from __future__ import annotations

import sqlalchemy as sa

from protojobs_sqlalchemy.migrations.making import drop_column, drop_index, is_on, make_column, make_index
from protojobs_sqlalchemy.tables.types import Name

revision = "0004"
down_revision = "0003"
step_back_loses = ""

_NOT_LIVE = "status NOT IN ('pending', 'processing')"
_FINISHED = "status IN ('completed', 'failed', 'cancelled')"


def upgrade() -> None:
    _make(f"{_NOT_LIVE} OR (status = 'processing' AND reserved_by IS NULL)", _NOT_LIVE)


def downgrade() -> None:
    _make(_FINISHED, "processed_at IS NOT NULL")


def _make(stands_in: str, where: str) -> None:
    drop_index("jobs_finished", "jobs")
    if is_on("mysql", "mariadb"):
        drop_column("jobs", "finished")
        make_column(
            "jobs", sa.Column("finished", Name(12), sa.Computed(f"CASE WHEN {stands_in} THEN status END", True))
        )
        make_index("jobs_finished", "jobs", ["finished", "processed_at"])
    else:
        make_index("jobs_finished", "jobs", ["status", "processed_at"], where=where)
