"""Can a job be async? Can I push from a coroutine?"""

import asyncio
import time
from collections.abc import AsyncIterator

from protojobs import Job, JobContext, JobQueue, Settings, create_driver, job, resource


class Client:
    """Stands for a client of HTTP or of a database: it is made once, and belongs to the event loop that made it."""

    def __init__(self) -> None:
        self.requests = 0

    async def get(self, page: int) -> int:
        self.requests += 1
        await asyncio.sleep(0.2)  # it waits, and while it waits the others run
        return page


@resource
async def client() -> AsyncIterator[Client]:
    """The worker opens it before its first job, and closes it after its last."""
    opened = Client()
    yield opened
    print(f"  one client has made {opened.requests} requests, and is closed")


@job(queue="web")
async def fetch(page: int, ctx: JobContext) -> int:
    return await ctx.resource(client).get(page)


class Stream(Job):
    """An async job with a timeout is cancelled at its next `await`, and cleans up as any coroutine does."""

    queue = "web"
    timeout = 0.3
    max_retries = 0

    async def handle(self, data, ctx: JobContext):
        try:
            await asyncio.sleep(60)
        finally:
            print(f"  job stopped after its timeout, in attempt {ctx.attempt}")


async def main() -> None:
    # An async job takes a slot and no thread, so a worker may run many.
    queue = JobQueue(create_driver("memory://"), Settings(concurrency=100))
    await asyncio.to_thread(queue.driver.setup)

    await queue.apush_many(fetch.bind(page) for page in range(50))
    started = time.monotonic()
    report = await queue.awork("web", 50)
    took = time.monotonic() - started
    print(f"{report.done} jobs of 0.2 s each, at once: {'less' if took < 5 else 'more'} than 5 s instead of 10 s")

    await queue.apush(Stream)
    await queue.awork("web", 1)
    failed = [job async for job in queue.afailed_jobs()]
    print("  its failed job says:", failed[0].exception.strip().splitlines()[-1])

    await asyncio.to_thread(queue.close)  # closes the driver, and the client


if __name__ == "__main__":
    asyncio.run(main())
