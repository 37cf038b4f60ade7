"""The resources of one process while they are open: on one event loop, opened in order, closed in reverse order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack

from protojobs.errors import ResourceFailed, one_line
from protojobs.jobs.context import NO_RESOURCES
from protojobs.jobs.resources import Resource

__all__ = ["OpenResources"]

_log = logging.getLogger("protojobs.worker")


class OpenResources:
    """`values` holds what jobs get. All methods run on the loop on which it was opened."""

    def __init__(
        self, resources: Iterable[Resource[object]], replaced: Mapping[Resource[object], object] = NO_RESOURCES
    ) -> None:
        """`replaced`: what a test has put in the place of some, which are then not opened."""
        self.values: dict[Resource[object], object] = dict(replaced)
        self._resources = tuple(resource for resource in resources if resource not in replaced)
        self._close = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open all. Raises ResourceFailed, with those closed again that were open by then."""
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # One task opens, holds and closes: task groups and timeouts must be left in the task that has entered them.
        self._task = asyncio.create_task(self._hold(opened))
        try:
            await opened
        except asyncio.CancelledError:
            self._task.cancel()
            raise

    async def close(self) -> None:
        """Close all. One that cannot be closed is logged, and the others are closed all the same."""
        self._close.set()
        if self._task is not None:
            try:
                await self._task
            except asyncio.CancelledError:
                if not self._task.done():  # it is we who are cancelled: the time for closing is over
                    self._task.cancel()
                    raise

    async def _hold(self, opened: asyncio.Future[None]) -> None:
        async with AsyncExitStack() as stack:
            for resource in self._resources:
                try:
                    await self._enter(stack, resource)
                except asyncio.CancelledError:
                    raise
                except BaseException as error:  # noqa: BLE001  (the user's code, `sys.exit` too: the worker's start fails)
                    if not opened.done():
                        opened.set_exception(_failed(resource, error))
                    return
            if not opened.done():
                opened.set_result(None)
            await self._close.wait()

    async def _enter(self, stack: AsyncExitStack, resource: Resource[object]) -> None:
        leave = AsyncExitStack()
        if resource.is_async:
            self.values[resource] = await leave.enter_async_context(resource.amanager())
        else:
            self.values[resource] = leave.enter_context(resource.manager())
        stack.push_async_callback(_leave, leave, resource)


def _failed(resource: Resource[object], error: BaseException) -> ResourceFailed:
    said = ResourceFailed(
        f"The resource {resource.name} could not be opened: {type(error).__name__}: {one_line(str(error))}.",
        mend="No job was claimed. Mend what it needs, then start the worker again.",
    )
    said.__cause__ = error
    return said


async def _leave(stack: AsyncExitStack, resource: Resource[object]) -> None:
    try:
        await stack.aclose()
    except Exception:  # noqa: BLE001  (the user's code; the other resources are to be closed)
        _log.exception("the resource %s could not be closed", resource.name)
