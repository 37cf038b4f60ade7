"""The tables of the first release."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from protojobs_sqlalchemy.migrations.making import Tables, drop_table, is_on, make_index, make_table
from protojobs_sqlalchemy.tables.types import LongText, Name, StoredId, StoredTime

revision = "0001"
down_revision = None
step_back_loses = "every job"

_PENDING = "status = 'pending'"
_PROCESSING = "status = 'processing'"
_FINISHED = "status IN ('completed', 'failed', 'cancelled')"
_LIVE = "status IN ('pending', 'processing')"
_WAITING = "is_paused = 0 AND next_due_at IS NOT NULL"

# Rows of `jobs` are rewritten twice in their life, so pages keep room for that: an update that has to go to another
# page locks two, and writes a record more. With two fifths of each page free a drain costs the server a tenth less than
# with a seventh (more is no better, and costs who pushes many), and the table ends up smaller. And dead rows, which
# every claim leaves behind, are taken away long before they are a fifth of a large table.
_POSTGRESQL_JOBS: Mapping[str, object] = {
    "fillfactor": 60,
    "toast_tuple_target": 512,
    "autovacuum_vacuum_scale_factor": 0,
    "autovacuum_vacuum_threshold": 20000,
    "autovacuum_vacuum_cost_delay": 0,
    "autovacuum_vacuum_insert_scale_factor": 0,
    "autovacuum_vacuum_insert_threshold": 500000,
    "autovacuum_analyze_scale_factor": 0.05,
}
_POSTGRESQL = {"jobs": _POSTGRESQL_JOBS, "workers": {"fillfactor": 50}, "counters": {"fillfactor": 30}}


def upgrade() -> None:
    has_no_partial_indexes = is_on("mysql", "mariadb")
    for name, columns in tables().items():
        stand_ins = _stand_ins() if has_no_partial_indexes and name == "jobs" else ()
        make_table(name, *columns, *stand_ins, postgresql_with=_POSTGRESQL.get(name))

    if has_no_partial_indexes:
        make_index("jobs_ready", "jobs", ["ready", "priority", "available_at", "id"])
        make_index("jobs_processing", "jobs", ["reserved_by"])
        make_index("jobs_finished", "jobs", ["finished", "processed_at"])
        make_index("jobs_moving", "jobs", ["moving_token"])
        make_index("jobs_unique", "jobs", ["live_key"], unique=True)
        make_index("schedules_due", "schedules", ["is_paused", "next_due_at", "id"])
    else:
        make_index("jobs_ready", "jobs", ["queue", "priority", "available_at", "id"], where=_PENDING)
        make_index("jobs_processing", "jobs", ["reserved_by"], where=_PROCESSING)
        make_index("jobs_finished", "jobs", ["status", "processed_at"], where="processed_at IS NOT NULL")
        make_index("jobs_moving", "jobs", ["moving_token"], where="moving_token IS NOT NULL")
        make_index("jobs_unique", "jobs", ["unique_key"], where=f"unique_key IS NOT NULL AND {_LIVE}", unique=True)
        make_index("schedules_due", "schedules", ["next_due_at", "id"], where=_WAITING)
    if is_on("postgresql"):
        # For heartbeats: while a transaction stays open, jobs_processing keeps an entry for each job that was claimed.
        make_index("jobs_marked", "jobs", ["reserved_by"], where="cancel_requested_at IS NOT NULL")
    make_index("failed_jobs_job", "failed_jobs", ["job_id"], unique=True)
    make_index("failed_jobs_time", "failed_jobs", ["failed_at", "id"])
    make_index("failed_jobs_queue", "failed_jobs", ["queue", "failed_at", "id"])


def downgrade() -> None:
    for name, columns in reversed(tables().items()):
        drop_table(name, columns)


def tables() -> Tables:
    """What this version makes, each with the columns by which ours is told from another's."""
    return {
        "jobs": _job_columns(),
        "failed_jobs": _failed_job_columns(),
        "workers": _worker_columns(),
        "queues": (sa.Column("name", Name, primary_key=True), sa.Column("paused_at", StoredTime)),
        "counters": _counter_columns(),
        "schedules": _schedule_columns(),
    }


def _job_columns() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("id", StoredId, primary_key=True),
        sa.Column("queue", Name, nullable=False),
        sa.Column("job_class", Name(512), nullable=False),
        sa.Column("job_name", Name, nullable=False),
        sa.Column("data", LongText, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("max_retries", sa.Integer, nullable=False),
        sa.Column("timeout", sa.Double, nullable=False),
        sa.Column("status", Name(12), nullable=False),
        sa.Column("created_at", StoredTime, nullable=False),
        sa.Column("available_at", StoredTime, nullable=False),
        sa.Column("reserved_at", StoredTime),
        sa.Column("processed_at", StoredTime),
        sa.Column("priority", sa.SmallInteger, nullable=False),
        sa.Column("retry_delay", sa.Double, nullable=False),
        sa.Column("retry_policy", LongText),
        sa.Column("claim_seq", sa.Integer, nullable=False),
        sa.Column("crashes", sa.Integer, nullable=False),
        sa.Column("returns", sa.Integer, nullable=False),
        sa.Column("reclaims", sa.Integer, nullable=False),
        sa.Column("reserved_by", Name(64)),
        sa.Column("cancel_requested_at", StoredTime),
        sa.Column("reason", LongText),
        sa.Column("progress", sa.Double),
        sa.Column("meta", LongText),
        sa.Column("unique_key", Name(255)),
        sa.Column("moving_token", Name),
        sa.Column("moved_from", Name(12)),
    )


def _stand_ins() -> tuple[sa.Column[object], ...]:
    """Generated columns whose NULLs do what a partial index's condition does elsewhere."""
    return (
        sa.Column("ready", Name, sa.Computed(f"CASE WHEN {_PENDING} THEN queue END", persisted=True)),
        sa.Column("finished", Name(12), sa.Computed(f"CASE WHEN {_FINISHED} THEN status END", persisted=True)),
        sa.Column("live_key", Name(255), sa.Computed(f"CASE WHEN {_LIVE} THEN unique_key END", persisted=True)),
    )


def _failed_job_columns() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("id", StoredId, primary_key=True),
        sa.Column("job_id", StoredId, nullable=False),
        sa.Column("queue", Name, nullable=False),
        sa.Column("job_class", Name(512), nullable=False),
        sa.Column("job_name", Name, nullable=False),
        sa.Column("data", LongText, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("exception", LongText, nullable=False),
        sa.Column("failed_at", StoredTime, nullable=False),
    )


def _worker_columns() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("id", Name(64), primary_key=True),
        sa.Column("host", Name(255), nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("queues", LongText, nullable=False),
        sa.Column("concurrency", sa.Integer, nullable=False),
        sa.Column("lease_s", sa.Double, nullable=False),
        sa.Column("isolates", sa.SmallInteger, nullable=False),
        sa.Column("started_at", StoredTime, nullable=False),
        sa.Column("heartbeat_at", StoredTime, nullable=False),
        sa.Column("lease_ends_at", StoredTime, nullable=False),
    )


def _counter_columns() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("queue", Name, primary_key=True),
        sa.Column("status", Name(12), primary_key=True),
        sa.Column("shard", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("count", sa.BigInteger, nullable=False),
    )


def _schedule_columns() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("id", Name(200), primary_key=True),
        sa.Column("spec", LongText, nullable=False),
        sa.Column("timezone", Name, nullable=False),
        sa.Column("misfire", Name(16), nullable=False),
        sa.Column("overlap", Name(16), nullable=False),
        sa.Column("catch_up", sa.Double, nullable=False),
        sa.Column("jitter", sa.Double, nullable=False),
        sa.Column("start_at", StoredTime),
        sa.Column("end_at", StoredTime),
        sa.Column("queue", Name, nullable=False),
        sa.Column("job_name", Name, nullable=False),
        sa.Column("job_class", Name(512), nullable=False),
        sa.Column("data", LongText, nullable=False),
        sa.Column("priority", sa.SmallInteger, nullable=False),
        sa.Column("max_retries", sa.Integer, nullable=False),
        sa.Column("retry_delay", sa.Double, nullable=False),
        sa.Column("retry_policy", LongText),
        sa.Column("timeout", sa.Double, nullable=False),
        sa.Column("is_paused", sa.SmallInteger, nullable=False),
        sa.Column("next_due_at", StoredTime),
        sa.Column("last_due_at", StoredTime),
        sa.Column("last_job_id", StoredId),
        sa.Column("version", sa.Integer, nullable=False),
    )
