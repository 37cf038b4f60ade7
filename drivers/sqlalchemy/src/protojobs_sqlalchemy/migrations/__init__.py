"""The steps from one version of the tables to the next, for Alembic. `schema.py` runs them."""

HEAD = "0004"
"""The version that this release works on."""

REVISIONS = ("0001", "0002", "0003", "0004")
"""Every version so far, oldest first."""
