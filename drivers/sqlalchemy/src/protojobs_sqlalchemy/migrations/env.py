"""Where Alembic starts: on the connection that `migrating.py` hands over, or for printing SQL."""

from __future__ import annotations

from alembic import context

from protojobs_sqlalchemy.tables.naming import VERSION_TABLE

_given = context.config.attributes
context.configure(
    connection=_given.get("connection"),
    dialect_name=_given.get("dialect_name"),
    version_table=_given["names"].bare(VERSION_TABLE),
    version_table_schema=_given["names"].schema,
    on_version_apply=_given.get("on_version_apply"),
    as_sql=context.is_offline_mode(),
)
with context.begin_transaction():
    context.run_migrations()
