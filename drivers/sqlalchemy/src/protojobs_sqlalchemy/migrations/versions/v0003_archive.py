"""PostgreSQL: where completed jobs go if `archive=daily` is set. Without it the table stays empty."""

from __future__ import annotations

from alembic import op

from protojobs_sqlalchemy.migrations.making import is_on, names

revision = "0003"
down_revision = "0002"
step_back_loses = "the completed jobs in the archive by days"

# What lies in no day's partition: nothing ever fails because one is missing.
_TABLE = """
CREATE TABLE IF NOT EXISTS @jobs_archive (LIKE @jobs, PRIMARY KEY (id, processed_at)) PARTITION BY RANGE (processed_at)
"""
_REST = "CREATE TABLE IF NOT EXISTS @jobs_archive_rest PARTITION OF @jobs_archive DEFAULT"
_BY_TIME = "CREATE INDEX IF NOT EXISTS {} ON @jobs_archive (processed_at)"

# Which of these ids are those of jobs that have been archived since then. New ids lie behind all that are there, so one
# look at where they would be does for all of them.
_KNOWN = """
CREATE OR REPLACE FUNCTION @jobs_archive_known(ids uuid[], first uuid, last uuid, since timestamptz) RETURNS uuid[]
LANGUAGE plpgsql VOLATILE AS $body$
BEGIN
    IF NOT EXISTS (SELECT FROM @jobs_archive WHERE id >= first AND id <= last AND processed_at >= since) THEN
        RETURN '{}';
    END IF;
    RETURN ARRAY (SELECT id FROM @jobs_archive WHERE id = ANY (ids) AND processed_at >= since);
END
$body$
"""

# Asked after jobs were inserted. Each statement of a volatile function sees what was committed before it, so a job
# that another session moved to the archive meanwhile is seen there, or its id was still taken in `jobs`.
_ABSENT = """
CREATE OR REPLACE FUNCTION @jobs_archive_absent(ids uuid[], first uuid, last uuid, since timestamptz) RETURNS uuid[]
LANGUAGE plpgsql VOLATILE AS $body$
BEGIN
    IF cardinality(@jobs_archive_known(ids, first, last, since)) > 0 THEN
        RAISE serialization_failure USING MESSAGE = 'a job of one of these ids has just been archived';
    END IF;
    RETURN ids;
END
$body$
"""
_OF_THESE = "(uuid[], uuid, uuid, timestamptz)"


def upgrade() -> None:
    if not is_on("postgresql"):
        return
    by_time = _BY_TIME.format(names().bare("jobs_archive_time"))  # an index is in the schema of its table
    for statement in (_TABLE, _REST, by_time, _KNOWN, _ABSENT):
        op.execute(names().sql(statement))
    # A day's jobs are counted in rows of their own, which go with its partition: their numbers are large.
    op.execute(names().sql("ALTER TABLE @counters ALTER COLUMN shard TYPE integer"))


def downgrade() -> None:
    if not is_on("postgresql"):
        return
    for name in ("jobs_archive_absent", "jobs_archive_known"):
        op.execute(f"DROP FUNCTION IF EXISTS {names().quoted(name)}{_OF_THESE}")
    op.execute(names().sql("DROP TABLE IF EXISTS @jobs_archive"))
    op.execute(names().sql("DELETE FROM @counters WHERE shard >= 10000"))
    op.execute(names().sql("ALTER TABLE @counters ALTER COLUMN shard TYPE smallint"))
