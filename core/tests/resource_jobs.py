"""Jobs with resources for test_resources.py, in a module that a child process can import. They note what happens in
the file that RESOURCE_NOTES names.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator

from protojobs import JobContext, job, resource


def note(what: str) -> None:
    with open(os.environ["RESOURCE_NOTES"], "a") as notes:
        notes.write(f"{what} {os.getpid()}\n")


@resource
def plain() -> Iterator[str]:
    if "RESOURCE_FAILS" in os.environ:
        raise ConnectionRefusedError("nobody is there")
    note("open")
    yield "plain"
    note("close")


@resource
async def of_the_loop() -> AsyncIterator[asyncio.AbstractEventLoop]:
    note("aopen")
    yield asyncio.get_running_loop()
    note("aclose")


@job(name="r.plain", executor="process")
def use_plain(ctx: JobContext) -> str:
    note("run")
    return ctx.resource(plain)


@job(name="r.async")
async def use_async(ctx: JobContext) -> bool:
    note("arun")
    return ctx.resource(of_the_loop) is asyncio.get_running_loop() and ctx.resource(plain) == "plain"
