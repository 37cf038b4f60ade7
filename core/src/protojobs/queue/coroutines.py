"""How coroutines call what waits for a store: on a pool of four threads, or on a thread of its own for `awork`."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

__all__ = ["in_thread", "offload", "on_own_thread"]

S = TypeVar("S")
P = ParamSpec("P")
T = TypeVar("T")

THREADS = 4  # round trips overlap; more would only queue inside the store's connection pool
_pools: dict[int, ThreadPoolExecutor] = {}  # by process id: a forked child must not wait for threads it does not have


def in_thread(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], Coroutine[object, object, T]]:
    """The twin of a method for coroutines: `astats = in_thread(stats)`. It takes the same and answers the same."""

    @wraps(method)
    async def twin(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        own = cast("Callable[P, T]", getattr(self, method.__name__))  # a subclass may have its own
        return await offload(own, *args, **kwargs)

    twin.__name__ = f"a{method.__name__}"
    twin.__qualname__ = f"{method.__qualname__.rpartition('.')[0]}.{twin.__name__}"
    twin.__doc__ = f"`{method.__name__}` for coroutines.\n\n{method.__doc__ or ''}"
    return twin


async def offload(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `function` on the pool. Cancelling the caller does not stop it: what is being stored will be stored."""
    import asyncio  # loaded already where a coroutine runs; programs without one do without
    from concurrent.futures import ThreadPoolExecutor

    pid = os.getpid()
    if pid not in _pools:
        _pools.clear()
        _pools[pid] = ThreadPoolExecutor(THREADS, thread_name_prefix="protojobs-async")
    loop = asyncio.get_running_loop()
    return await asyncio.shield(loop.run_in_executor(_pools[pid], lambda: function(*args, **kwargs)))


async def on_own_thread(function: Callable[[], T], *, cancelled: Callable[[], None]) -> T:
    """Run what takes long on a thread of its own, not one of the four. A cancelled caller calls `cancelled`, and waits.

    It waits for the end all the same: what runs on must not outlive the coroutine that owns it. Each further
    cancellation is passed on too.
    """
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    thread = ThreadPoolExecutor(1, thread_name_prefix="protojobs-awork")
    running = asyncio.get_running_loop().run_in_executor(thread, function)
    thread.shutdown(wait=False)  # once that is done; to wait for it would hold up the loop
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        cancelled()
        while not running.done():
            try:
                await asyncio.wait([running])
            except asyncio.CancelledError:
                cancelled()
        raise
