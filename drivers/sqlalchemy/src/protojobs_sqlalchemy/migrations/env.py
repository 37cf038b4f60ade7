"""Where Alembic starts: on the connection that `schema.py` hands over, or for printing SQL."""

from __future__ import annotations

from alembic import context

_given = context.config.attributes
context.configure(
    connection=_given.get("connection"),
    dialect_name=_given.get("dialect_name"),
    version_table=_given["version_table"],
    on_version_apply=_given.get("on_version_apply"),
    as_sql=context.is_offline_mode(),
)
with context.begin_transaction():
    context.run_migrations()
