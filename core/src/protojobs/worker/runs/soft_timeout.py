"""The soft limit of an async run: JobTimeout is raised where it awaits, by a cancellation that turns into it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from types import coroutine
from typing import Any

from protojobs.errors import JobTimeout

__all__ = ["in_time"]


async def in_time(awaitable: Awaitable[object], soft_s: float, is_cut: Callable[[], bool]) -> object:
    """Await it in this task, and raise JobTimeout in it once after `soft_s` seconds.

    A cancellation stays one while `is_cut()`: then somebody else wants the end of the run.
    """
    task = asyncio.current_task()
    assert task is not None
    told: list[None] = []  # one entry between the cancellation and its arrival

    def tell() -> None:
        if not is_cut():
            told.append(None)
            task.cancel()

    def is_meant() -> bool:
        if not told or is_cut():
            return False
        told.clear()
        task.uncancel()
        return True

    timer = asyncio.get_running_loop().call_later(soft_s, tell)
    try:
        return await _driven(awaitable, is_meant)
    finally:
        timer.cancel()


@coroutine
def _driven(awaitable: Awaitable[object], is_meant: Callable[[], bool]) -> Generator[Any, Any, object]:
    """As `yield from awaitable.__await__()`, but for what a cancellation becomes."""
    inner = awaitable.__await__()
    error: BaseException | None = None
    sent: object = None
    while True:
        try:
            awaited = inner.send(sent) if error is None else inner.throw(error)
        except StopIteration as end:
            return end.value
        error, sent = None, None
        try:
            sent = yield awaited
        except asyncio.CancelledError as cancelled:
            error = JobTimeout() if is_meant() else cancelled
        except BaseException as raised:  # noqa: BLE001  (passed on as it is)
            error = raised
