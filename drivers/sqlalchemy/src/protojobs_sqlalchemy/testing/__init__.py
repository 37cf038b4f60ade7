"""For an application's tests: its jobs in the transaction of a test, which is rolled back at the end."""

from __future__ import annotations

from protojobs_sqlalchemy.testing.inside import InsideDriver, inside

__all__ = ["InsideDriver", "inside"]
