"""Jobs that are pushed and completed inside the caller's own transaction: an optional part of the port."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from protojobs.port.records import Enqueued, Fence, NewJob

__all__ = [
    "Begins",
    "BeginsNested",
    "HasCurrentTransaction",
    "InOneTransaction",
    "SupportsAsyncTransaction",
    "SupportsTransaction",
]


@runtime_checkable
class SupportsTransaction(Protocol):
    """Jobs that commit or vanish together with the caller's own rows."""

    def enqueue_in(
        self, transaction: object, jobs: Sequence[NewJob], *, on_commit: Callable[[], None] | None = None
    ) -> list[Enqueued]:
        """As `enqueue`, inside the caller's transaction: never commits, never opens a second connection.

        `on_commit` is called once after the *root* commit where the driver can know it (a Session), else never. Raises
        `OptionInvalid` for an object that it does not know, or that belongs to another database.
        """
        ...

    def complete_in(self, transaction: object, claim: Fence) -> None:
        """Settle the claim as completed inside the caller's transaction; `LeaseLost` when it is not current."""
        ...


@runtime_checkable
class HasCurrentTransaction(Protocol):
    """A driver that knows which transaction the calling thread is in, as a framework keeps one for each thread.

    Optional, beside SupportsTransaction. A push without `session=` joins that transaction.
    """

    def current_transaction(self) -> object | None:
        """The transaction for `enqueue_in`, or None: then the push is stored at once. Asks no store."""
        ...


@runtime_checkable
class Begins(Protocol):
    """A driver that begins a transaction itself: for whoever has none, and so that the kit can try SupportsTransaction
    without a fixture. Optional, beside SupportsTransaction.
    """

    def begin(self) -> AbstractContextManager[object]:
        """A transaction for `enqueue_in` and `complete_in`: committed at the block's end, rolled back by an exception.

        Where the store has savepoints, what it yields has `begin_nested` (`BeginsNested`).
        """
        ...


@runtime_checkable
class BeginsNested(Protocol):
    """A transaction in which another can begin, as SQLAlchemy's Session and Connection: a savepoint."""

    def begin_nested(self) -> AbstractContextManager[object]:
        """A savepoint: kept at the end of the block, rolled back alone by an exception."""
        ...


@runtime_checkable
class SupportsAsyncTransaction(Protocol):
    """The same for asynchronous transactions."""

    async def aenqueue_in(
        self, transaction: object, jobs: Sequence[NewJob], *, on_commit: Callable[[], None] | None = None
    ) -> list[Enqueued]:
        """As `enqueue_in`, for an AsyncSession or AsyncConnection."""
        ...


@runtime_checkable
class InOneTransaction(Protocol):
    """A driver for tests: all its verbs run inside one transaction of the test's, which is rolled back at its end.

    So each verb sees what is not committed, and what a verb has stored may be rolled back later.
    """

    def when_rolled_back(self, callback: Callable[[], None]) -> None:
        """Call `callback` once if what the last verb has stored is rolled back: by a savepoint around it, or wholly."""
        ...
