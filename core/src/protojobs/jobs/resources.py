"""Resources: what a process that runs jobs makes once and all its jobs share, such as a client or a pool.

Declaring one registers it, as with jobs. Nothing is opened before a worker starts.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from typing import Generic, TypeVar, cast, overload

from protojobs.errors import OptionInvalid, shown

__all__ = ["DECLARED", "Resource", "resource"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Resource(Generic[T_co]):
    """One declared resource. A job gets its value by `context.resource(this)`."""

    def __init__(self, function: Callable[[], Iterator[T_co] | AsyncIterator[T_co]]) -> None:
        self.name = f"{function.__module__}.{function.__qualname__}"
        self.module = function.__module__
        self.is_async = inspect.isasyncgenfunction(function)
        self._function = function

    def __repr__(self) -> str:
        """Its name."""
        return f"<Resource {self.name}>"

    def manager(self) -> AbstractContextManager[T_co]:
        """Of a plain one: opens it on entering, closes it on leaving."""
        return contextmanager(cast("Callable[[], Generator[T_co]]", self._function))()

    def amanager(self) -> AbstractAsyncContextManager[T_co]:
        """Of an async one."""
        return asynccontextmanager(cast("Callable[[], AsyncGenerator[T_co]]", self._function))()


DECLARED: dict[str, Resource[object]] = {}  # of this process, in the order in which workers open them


@overload
def resource(function: Callable[[], AsyncIterator[T]], /) -> Resource[T]: ...
@overload
def resource(function: Callable[[], Iterator[T]], /) -> Resource[T]: ...
def resource(function: Callable[[], Iterator[T] | AsyncIterator[T]], /) -> Resource[T]:
    """Make a generator function a resource of workers: what it yields is the value, and what follows closes it.

    Each process that runs jobs opens it once, before its first job, and closes it after the last. An `async def` is
    entered and left on the event loop on which the process's async jobs run, and is for these only; a plain one is
    shared by all jobs, from many threads at a time. Raises OptionInvalid for a function that is no generator, or that
    wants arguments.
    """
    if not (inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)):
        raise OptionInvalid(
            f"{shown(function)} cannot be a resource: it yields nothing.",
            mend="Write a generator function that opens, yields the value once, and closes.",
        )
    if any(one.default is one.empty for one in inspect.signature(function).parameters.values()):
        raise OptionInvalid(
            f"The resource {function.__qualname__} wants arguments, and a worker has none to give.",
            mend="Read what it needs, such as a URL, inside the function.",
        )
    declared = Resource(function)
    DECLARED[declared.name] = declared  # the same place again, as at a reload, replaces it
    return declared
