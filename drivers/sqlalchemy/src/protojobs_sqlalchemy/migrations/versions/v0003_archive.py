"""PostgreSQL: where completed jobs go if `archive=daily` is set. Without it the table stays empty."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"

# What lies in no day's partition: nothing ever fails because one is missing.
_TABLE = """
CREATE TABLE IF NOT EXISTS jobs_archive (LIKE jobs, PRIMARY KEY (id, processed_at)) PARTITION BY RANGE (processed_at)
"""
_REST = "CREATE TABLE IF NOT EXISTS jobs_archive_rest PARTITION OF jobs_archive DEFAULT"
_BY_TIME = "CREATE INDEX IF NOT EXISTS jobs_archive_time ON jobs_archive (processed_at)"

# Asked after jobs were inserted. Each statement of a volatile function sees what was committed before it, so a job
# that another session moved to the archive is seen there, or its id is still taken in `jobs`.
_ABSENT = """
CREATE OR REPLACE FUNCTION jobs_archive_absent(ids uuid[], since timestamptz) RETURNS uuid[]
LANGUAGE plpgsql VOLATILE AS $body$
BEGIN
    IF EXISTS (SELECT FROM jobs_archive WHERE id = ANY (ids) AND processed_at >= since) THEN
        RAISE serialization_failure USING MESSAGE = 'a job of one of these ids has just been archived';
    END IF;
    RETURN ids;
END
$body$
"""


def upgrade() -> None:
    if op.get_context().dialect.name != "postgresql":
        return
    for statement in (_TABLE, _REST, _BY_TIME, _ABSENT):
        op.execute(statement)
    # A day's jobs are counted in rows of their own, which go with its partition: their numbers are large.
    op.execute("ALTER TABLE counters ALTER COLUMN shard TYPE integer")


def downgrade() -> None:
    if op.get_context().dialect.name != "postgresql":
        return
    op.execute("DROP FUNCTION IF EXISTS jobs_archive_absent(uuid[], timestamptz)")
    op.execute("DROP TABLE IF EXISTS jobs_archive")
    op.execute("DELETE FROM counters WHERE shard >= 10000")
    op.execute("ALTER TABLE counters ALTER COLUMN shard TYPE smallint")
