"""A bounded pool of four threads, through which coroutines call what waits for the store."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

__all__ = ["offload"]

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 4  # round trips overlap; more would only queue inside the store's connection pool
_pools: dict[int, ThreadPoolExecutor] = {}  # by process id: a forked child must not wait for threads it does not have


async def offload(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `function` on the pool. Cancelling the caller does not stop it: what is being stored will be stored."""
    pid = os.getpid()
    if pid not in _pools:
        _pools.clear()
        _pools[pid] = ThreadPoolExecutor(THREADS, thread_name_prefix="protojobs-async")
    loop = asyncio.get_running_loop()
    return await asyncio.shield(loop.run_in_executor(_pools[pid], lambda: function(*args, **kwargs)))
