"""What can be seen of the work: failures grouped by their cause, and the tables of notes."""

from __future__ import annotations

import sqlalchemy as sa

from protojobs_sqlalchemy.migrations.making import (
    Tables,
    drop_column,
    drop_index,
    drop_table,
    make_column,
    make_index,
    make_table,
)
from protojobs_sqlalchemy.tables.types import LongText, Name, StoredId, StoredTime

revision = "0002"
down_revision = "0001"
step_back_loses = "the audit log, the notes of runs, and the figures for charts"

# A worker rewrites its rows of the minute and of the hour every ten seconds, in place where the page has room.
_POSTGRESQL_ROLLUPS = {"fillfactor": 70}


def upgrade() -> None:
    make_column("failed_jobs", sa.Column("fingerprint", Name(32), nullable=False, server_default=""))
    make_index("failed_jobs_alike", "failed_jobs", ["fingerprint", "failed_at", "id"])
    for name, columns in tables().items():
        make_table(name, *columns, postgresql_with=_POSTGRESQL_ROLLUPS if name == "rollups" else None)
    make_index("rollups_queue", "rollups", ["period_s", "queue", "began_at"])
    make_index("rollups_job", "rollups", ["period_s", "job_name", "began_at"])
    make_index("attempts_ended", "attempts", ["ended_at"])
    make_index("audit_time", "audit", ["at"])


def downgrade() -> None:
    for name, columns in reversed(tables().items()):
        drop_table(name, columns)
    drop_index("failed_jobs_alike", "failed_jobs")
    drop_column("failed_jobs", "fingerprint")


def tables() -> Tables:
    """What this version makes, each with the columns by which ours is told from another's."""
    return {
        "rollups": _rollup_columns(),
        "attempts": _attempt_columns(),
        "depths": _depth_columns(),
        "audit": _audit_columns(),
    }


def _rollup_columns() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("period_s", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("began_at", StoredTime, primary_key=True, autoincrement=False),
        sa.Column("queue", Name, primary_key=True),
        sa.Column("job_name", Name, primary_key=True),
        sa.Column("result", Name(16), primary_key=True),
        sa.Column("worker", Name(64), primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("wait_s", sa.Double, nullable=False),
        sa.Column("run_s", sa.Double, nullable=False),
        sa.Column("waits", LongText, nullable=False),
        sa.Column("runs", LongText, nullable=False),
    )


def _attempt_columns() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("job_id", StoredId, primary_key=True),
        sa.Column("claim_seq", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("worker", Name(64), nullable=False),
        sa.Column("result", Name(16), nullable=False),
        sa.Column("started_at", StoredTime, nullable=False),
        sa.Column("ended_at", StoredTime, nullable=False),
        sa.Column("error", LongText, nullable=False),
        sa.Column("fingerprint", Name(32), nullable=False),
    )


def _depth_columns() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("at", StoredTime, primary_key=True, autoincrement=False),
        sa.Column("queue", Name, primary_key=True),
        sa.Column("ready", sa.BigInteger, nullable=False),
        sa.Column("scheduled", sa.BigInteger, nullable=False),
        sa.Column("processing", sa.BigInteger, nullable=False),
        sa.Column("is_capped", sa.SmallInteger, nullable=False),
    )


def _audit_columns() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("id", StoredId, primary_key=True),
        sa.Column("at", StoredTime, nullable=False),
        sa.Column("actor", LongText, nullable=False),
        sa.Column("action", LongText, nullable=False),
        sa.Column("target", LongText, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("detail", LongText, nullable=False),
        sa.Column("address", LongText, nullable=False),
    )
