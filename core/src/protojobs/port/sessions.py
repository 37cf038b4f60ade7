"""The sessions that `push(..., session=)` and `complete_in` take, for type checkers. A driver decides at run time."""

from __future__ import annotations

from typing import Protocol

__all__ = ["AsyncSession", "SyncSession"]


class SyncSession(Protocol):
    """A transaction that plain functions use: a SQLAlchemy Session, scoped_session or Connection.

    Told by its `commit`, which is never called here. An Engine or a sessionmaker has none.
    """

    def commit(self) -> None:
        """The caller's own commit."""
        ...


class AsyncSession(Protocol):
    """A transaction that coroutines use: a SQLAlchemy AsyncSession, async_scoped_session or AsyncConnection."""

    async def commit(self) -> None:
        """The caller's own commit."""
        ...
