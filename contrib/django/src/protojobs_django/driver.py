"""DjangoDriver: the SQL driver on a database of Django's, whose transactions it joins.

Whatever is pushed inside `transaction.atomic()` goes through Django's own connection and is committed or rolled back
with it. All else, such as what a worker does, goes through connections of the driver's own.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import cast

from asgiref.sync import sync_to_async
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.connection import ConnectionProxy
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine

from protojobs.errors import DriverError, OptionInvalid
from protojobs.port.records import Enqueued, Fence, NewJob
from protojobs_django.addresses import address_of, is_in_memory, is_pooled
from protojobs_django.joining import Joining
from protojobs_sqlalchemy import SQLAlchemyDriver

__all__ = ["DjangoDriver", "driver_for"]


class DjangoDriver(SQLAlchemyDriver):
    """As SQLAlchemyDriver, and `session=` may be Django's own `connection`, or `connections["other"]`.

    Inside `transaction.atomic()` of the database `alias` a push joins that transaction without being told.
    """

    def __init__(self, where: str | URL | Engine, *, alias: str = "default", is_pooled: bool = False) -> None:
        super().__init__(where, is_pooled=is_pooled)
        self.alias = alias
        self._joining_django = Joining()

    def current_transaction(self) -> object | None:
        """Django's connection of this thread, where it is inside `transaction.atomic()`."""
        wrapper = connections[self.alias]
        return wrapper if wrapper.in_atomic_block else None

    def enqueue_in(
        self, transaction: object, jobs: Sequence[NewJob], *, on_commit: Callable[[], None] | None = None
    ) -> list[Enqueued]:
        """As that of SQLAlchemyDriver, for Django's connections too. `on_commit` is called after the commit."""
        wrapper = _wrapper_of(transaction)
        if wrapper is None:
            return super().enqueue_in(transaction, jobs, on_commit=on_commit)
        if not _is_open(wrapper) and wrapper.alias == self.alias:  # each statement is a transaction: so is this push
            enqueued = self.enqueue(jobs)
            if on_commit is not None:
                on_commit()
            return enqueued
        with self._joined(wrapper) as conn:
            enqueued = super().enqueue_in(conn, jobs)
        if on_commit is not None and wrapper.in_atomic_block:
            wrapper.on_commit(on_commit, robust=True)
        return enqueued

    async def aenqueue_in(
        self, transaction: object, jobs: Sequence[NewJob], *, on_commit: Callable[[], None] | None = None
    ) -> list[Enqueued]:
        """As `enqueue_in`, in the thread in which Django runs the ORM of coroutines; or in an AsyncSession."""
        if not _is_djangos(transaction):
            return await super().aenqueue_in(transaction, jobs, on_commit=on_commit)
        return await sync_to_async(self.enqueue_in, thread_sensitive=True)(transaction, jobs, on_commit=on_commit)

    def complete_in(self, transaction: object, claim: Fence) -> None:
        """As that of SQLAlchemyDriver, for Django's connections too: inside `transaction.atomic()`."""
        wrapper = _wrapper_of(transaction)
        if wrapper is None:
            super().complete_in(transaction, claim)
            return
        if not _is_open(wrapper):
            raise OptionInvalid(
                f'No transaction is open on the database "{wrapper.alias}".',
                mend="Call complete_in inside transaction.atomic().",
            )
        with self._joined(wrapper) as conn:
            super().complete_in(conn, claim)

    @contextmanager
    def _joined(self, wrapper: BaseDatabaseWrapper) -> Generator[Connection]:
        wrapper.validate_no_broken_transaction()
        url = address_of(wrapper, {})
        if wrapper.alias != self.alias and is_in_memory(url):  # of two of them SQLite cannot tell which it is
            raise OptionInvalid(
                f'The transaction is on the database "{wrapper.alias}", but the jobs are elsewhere.',
                mend=f'Give connections["{self.alias}"].',
            )
        try:
            with self._joining_django.joined(wrapper, url) as conn:
                yield conn
        except DriverError:
            # The database may have given the transaction up. Who catches this must not store the rest without the job.
            if wrapper.in_atomic_block:
                wrapper.set_rollback(True)
            raise


def driver_for(wrapper: BaseDatabaseWrapper, url: URL) -> DjangoDriver:
    """The driver on the database of this connection, whose address is `url`."""
    if is_in_memory(url) and url.database != ":memory:":  # that of a test run, shared by the connections of the process
        return DjangoDriver(create_engine(url, poolclass=NullPool), alias=wrapper.alias)
    return DjangoDriver(url, alias=wrapper.alias, is_pooled=is_pooled(wrapper))


def _is_djangos(transaction: object) -> bool:
    return isinstance(transaction, ConnectionProxy | BaseDatabaseWrapper)


def _wrapper_of(transaction: object) -> BaseDatabaseWrapper | None:
    """The connection of Django that is meant, in this thread; None for an object that is none."""
    if isinstance(transaction, ConnectionProxy):
        return connections[cast("BaseDatabaseWrapper", transaction).alias]
    return transaction if isinstance(transaction, BaseDatabaseWrapper) else None


def _is_open(wrapper: BaseDatabaseWrapper) -> bool:
    return wrapper.in_atomic_block or not wrapper.get_autocommit()
