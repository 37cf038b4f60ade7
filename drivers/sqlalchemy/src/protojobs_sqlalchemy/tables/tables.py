"""The tables, as the driver's statements and the mapped classes see them. The migrations create them.

`jobs` and `failed_jobs` have the documented columns under the documented names; what stands beside them is ours. Rows
stay narrow: tracebacks live in `failed_jobs`, since a claim rewrites the whole row of `jobs`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from sqlalchemy import BigInteger, Case, Column, Double, Integer, MetaData, SmallInteger, Table, case

from protojobs_sqlalchemy.tables.naming import Names
from protojobs_sqlalchemy.tables.types import LongText, Name, Number, Small, StoredId, StoredTime, Whole

__all__ = [
    "COUNTER_SHARDS",
    "COUNT_MAX",
    "FINGERPRINT_MAX",
    "JOB_CLASS_MAX",
    "PLAIN",
    "STORES_MAX",
    "WORKER_ID_MAX",
    "Tables",
    "tables_of",
]

STORES_MAX = 64  # of different names, whose tables and statements one process keeps
COUNT_MAX = 2**31 - 1
JOB_CLASS_MAX = 512  # characters; module and qualified name, for people
WORKER_ID_MAX = 64
FINGERPRINT_MAX = 32  # characters
COUNTER_SHARDS = 64  # the connections of settling workers are spread over this many rows per counter


class Tables:
    """The tables of one store, under its names."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.metadata = MetaData(schema=names.schema)

        def table(name: str, *columns: Column[Any]) -> Table:
            return Table(names.bare(name), self.metadata, *columns)

        self.jobs = table(
            "jobs",
            Column("id", StoredId, primary_key=True),
            Column("queue", Name, nullable=False),
            Column("job_class", Name(JOB_CLASS_MAX), nullable=False),
            Column("job_name", Name, nullable=False),
            Column("data", LongText, nullable=False),
            Column("attempts", Whole, nullable=False),
            Column("max_retries", Whole, nullable=False),
            Column("timeout", Number, nullable=False),
            Column("status", Name(12), nullable=False),
            Column("created_at", StoredTime, nullable=False),
            Column("available_at", StoredTime, nullable=False),
            Column("reserved_at", StoredTime),
            Column("processed_at", StoredTime),
            Column("priority", Small, nullable=False),
            Column("retry_delay", Number, nullable=False),
            Column("retry_policy", LongText),
            Column("claim_seq", Whole, nullable=False),
            Column("crashes", Whole, nullable=False),
            Column("returns", Whole, nullable=False),
            Column("reclaims", Whole, nullable=False),
            Column("reserved_by", Name(WORKER_ID_MAX)),  # NULL outside processing
            Column("cancel_requested_at", StoredTime),
            Column("reason", LongText),
            Column("progress", Number),
            Column("meta", LongText),
            Column("unique_key", Name(255)),  # reserved
            Column("result", LongText),  # of a completed job, where it keeps one
            Column("moving_token", Name),  # the export that holds the job while its status is `moving` ...
            Column("moved_from", Name(12)),  # ... and the status that it had
        )

        self.next_claim_seq: Case[int] = case(
            (self.jobs.c.claim_seq < COUNT_MAX, self.jobs.c.claim_seq + 1), else_=COUNT_MAX
        )  # a foreign hand may do it

        self.failed_jobs = table(
            "failed_jobs",
            Column(
                "id", StoredId, primary_key=True
            ),  # of this failure: a retry that is sent again does not meet a later one
            Column("job_id", StoredId, nullable=False),  # unique: a job that is failed has one row here, any other none
            Column("queue", Name, nullable=False),
            Column("job_class", Name(JOB_CLASS_MAX), nullable=False),
            Column("job_name", Name, nullable=False),
            Column("data", LongText, nullable=False),
            Column("attempts", Whole, nullable=False),
            Column("exception", LongText, nullable=False),
            Column("failed_at", StoredTime, nullable=False),
            Column("fingerprint", Name(FINGERPRINT_MAX), nullable=False),
        )

        self.workers = table(
            "workers",
            Column("id", Name(WORKER_ID_MAX), primary_key=True),
            Column("host", Name(255), nullable=False),
            Column("pid", Integer, nullable=False),
            Column("queues", LongText, nullable=False),  # JSON list of names
            Column("concurrency", Integer, nullable=False),
            Column("lease_s", Double, nullable=False),
            Column("isolates", SmallInteger, nullable=False),
            Column("started_at", StoredTime, nullable=False),
            Column("heartbeat_at", StoredTime, nullable=False),
            Column("lease_ends_at", StoredTime, nullable=False),
        )

        self.queues = table(
            "queues",
            Column("name", Name, primary_key=True),
            Column("paused_at", StoredTime),
        )

        # Finished jobs are counted here, in the step that finishes or removes them, so that `stats` never counts rows.
        self.counters = table(
            "counters",
            Column("queue", Name, primary_key=True),
            Column("status", Name(12), primary_key=True),
            Column(
                "shard", Integer, primary_key=True, autoincrement=False
            ),  # beyond the small ones: postgresql_archive.py
            Column("count", BigInteger, nullable=False),
        )

        # The columns are the fields of `protojobs.port.schedules.Schedule`.
        self.schedules = table(
            "schedules",
            Column("id", Name(200), primary_key=True),
            Column("spec", LongText, nullable=False),
            Column("timezone", Name, nullable=False),
            Column("misfire", Name(16), nullable=False),
            Column("overlap", Name(16), nullable=False),
            Column("catch_up", Double, nullable=False),
            Column("jitter", Double, nullable=False),
            Column("start_at", StoredTime),
            Column("end_at", StoredTime),
            Column("queue", Name, nullable=False),
            Column("job_name", Name, nullable=False),
            Column("job_class", Name(JOB_CLASS_MAX), nullable=False),
            Column("data", LongText, nullable=False),
            Column("priority", SmallInteger, nullable=False),
            Column("max_retries", Integer, nullable=False),
            Column("retry_delay", Double, nullable=False),
            Column("retry_policy", LongText),
            Column("timeout", Double, nullable=False),
            Column("is_paused", SmallInteger, nullable=False),
            Column("next_due_at", StoredTime),
            Column("last_due_at", StoredTime),
            Column("last_job_id", StoredId),
            Column("version", Integer, nullable=False),
        )

        # What follows are notes beside the jobs, the fields of the records of `protojobs.port.observing`: they outlive
        # their time by a minute, and a note that is lost costs a chart a point.
        self.rollups = table(
            "rollups",
            Column("period_s", Integer, primary_key=True, autoincrement=False),
            Column("began_at", StoredTime, primary_key=True, autoincrement=False),
            Column("queue", Name, primary_key=True),
            Column("job_name", Name, primary_key=True),
            Column("result", Name(16), primary_key=True),
            Column("worker", Name(WORKER_ID_MAX), primary_key=True),
            Column("count", BigInteger, nullable=False),
            Column("wait_s", Double, nullable=False),
            Column("run_s", Double, nullable=False),
            Column("waits", LongText, nullable=False),  # JSON objects: bucket -> count
            Column("runs", LongText, nullable=False),
        )

        self.attempts = table(
            "attempts",
            Column("job_id", StoredId, primary_key=True),
            Column("claim_seq", Integer, primary_key=True, autoincrement=False),
            Column("attempt", Integer, nullable=False),
            Column("worker", Name(WORKER_ID_MAX), nullable=False),
            Column("result", Name(16), nullable=False),
            Column("started_at", StoredTime, nullable=False),
            Column("ended_at", StoredTime, nullable=False),
            Column("error", LongText, nullable=False),
            Column("fingerprint", Name(FINGERPRINT_MAX), nullable=False),
        )

        self.depths = table(
            "depths",
            Column("at", StoredTime, primary_key=True, autoincrement=False),
            Column("queue", Name, primary_key=True),  # "": somebody has taken this minute's sample upon him
            Column("ready", BigInteger, nullable=False),
            Column("scheduled", BigInteger, nullable=False),
            Column("processing", BigInteger, nullable=False),
            Column("is_capped", SmallInteger, nullable=False),
        )

        self.audit = table(
            "audit",
            Column("id", StoredId, primary_key=True),
            Column("at", StoredTime, nullable=False),
            Column("actor", LongText, nullable=False),
            Column("action", LongText, nullable=False),
            Column("target", LongText, nullable=False),
            Column("count", BigInteger, nullable=False),
            Column("detail", LongText, nullable=False),
            Column("address", LongText, nullable=False),
        )


@lru_cache(maxsize=STORES_MAX)
def _tables(schema: str | None, prefix: str) -> Tables:
    return Tables(Names(schema, prefix))


def tables_of(names: Names) -> Tables:
    """The tables under these names: the same object for the same ones, so that statements can be kept for it."""
    return _tables(names.schema, names.prefix)


PLAIN = tables_of(Names())
"""Those of a store without a schema or a prefix of its own."""
