"""What test_supported_versions.py runs with an older SQLAlchemy: python sqlalchemy_program.py URL ASYNC_DRIVER...

It pushes in sessions that are committed and rolled back, works the jobs, and prints a JSON object of what it saw.
"""

from __future__ import annotations

import asyncio
import json
import sys

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from protojobs import JobQueue, job
from protojobs_sqlalchemy import SQLAlchemyDriver


@job(name="versions.add")
def add(a: int, b: int) -> int:
    return a + b


@job(name="versions.break", max_retries=0)
def break_() -> None:
    raise RuntimeError("on purpose")


def push_in_session(queue: JobQueue, url: sa.URL) -> None:
    engine = sa.create_engine(url)
    with Session(engine) as session:
        queue.push(add.bind(1, 2), session=session)
        session.commit()
        queue.push(add.bind(3, 4), session=session)
        session.rollback()
    engine.dispose()


async def push_in_async_session(queue: JobQueue, url: sa.URL) -> None:
    engine = create_async_engine(url)
    async with AsyncSession(engine) as session:
        await queue.apush(add.bind(1, 2), session=session)
        await session.commit()
        await queue.apush(add.bind(3, 4), session=session)
        await session.rollback()
    await engine.dispose()


def main(url: str, *async_drivers: str) -> None:
    driver = SQLAlchemyDriver(url)
    driver.setup()
    with JobQueue(driver) as queue:
        push_in_session(queue, driver.engine.url)
        for name in async_drivers:
            asyncio.run(push_in_async_session(queue, driver.engine.url.set(drivername=name)))
        queue.push(break_.bind())
        pushed = queue.stats().pending
        report = queue.work(max_jobs=pushed)
        failed = len(list(queue.failed_jobs()))
    seen = {"pushed": pushed, "done": report.done, "failed": failed, "migrated_again": driver.migrate()}
    driver.close()
    print(json.dumps({"sqlalchemy": sa.__version__, **seen}))


if __name__ == "__main__":
    main(*sys.argv[1:])
