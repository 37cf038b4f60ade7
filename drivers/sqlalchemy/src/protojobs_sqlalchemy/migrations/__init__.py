"""The steps from one version of the tables to the next, for Alembic. `schema.py` runs them."""

HEAD = "0001"
"""The version that this release works on."""

REVISIONS = ("0001",)
"""Every version so far, oldest first."""
