"""The shop's jobs, the queue that they are pushed to, and what a worker opens for them."""

from collections.abc import AsyncIterator

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from protojobs import Cron, JobContext, JobQueue, job, resource
from shop.tables import Order, url

queue = JobQueue.from_config(push_timeout=2)  # reads PROTOJOBS_URL; opens nothing yet


@resource
async def database() -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """The worker's own pool, on the event loop of its jobs."""
    engine = create_async_engine(url)
    yield async_sessionmaker(engine)
    await engine.dispose()


@job(name="order.confirm", queue="emails")
async def confirm(order: int, ctx: JobContext) -> None:
    async with ctx.resource(database)() as session, session.begin():
        row = await session.get_one(Order, order)
        print(f"confirmed order {row.id} to {row.email}", flush=True)  # a shop would send a mail here
        row.is_confirmed = True
        await ctx.acomplete_in(session)  # the row and the job's end are in one transaction


@job(name="orders.count", queue="reports", cron=Cron("* * * * *", timezone="UTC"))
async def count(ctx: JobContext) -> int:
    async with ctx.resource(database)() as session:
        orders = await session.scalar(select(func.count()).select_from(Order)) or 0
    print(f"{orders} orders so far", flush=True)
    return orders
