"""MariaDB and MySQL: no unique index of a key that no driver writes yet.

They have no partial indexes, so every job had an entry there, which each push, claim and settlement wrote anew.
"""

from __future__ import annotations

from protojobs_sqlalchemy.migrations.making import drop_index, is_on, make_index, note_readable_from

revision = "0006"
down_revision = "0005"
readable_from = "0005"
step_back_loses = ""


def upgrade() -> None:
    if is_on("mysql", "mariadb"):
        drop_index("jobs_unique", "jobs")
    note_readable_from(readable_from)


def downgrade() -> None:
    if is_on("mysql", "mariadb"):
        make_index("jobs_unique", "jobs", ["live_key"], unique=True)
