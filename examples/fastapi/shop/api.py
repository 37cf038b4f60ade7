"""The shop's API: an order is stored together with the job that confirms it."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy.ext.asyncio import AsyncSession

from protojobs import JobQueue
from protojobs_dashboard import BasicAuth, Dashboard
from shop.jobs import confirm, queue
from shop.tables import Order, engine, sessions


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    yield
    await asyncio.to_thread(queue.close)
    await engine.dispose()


def the_queue() -> JobQueue:
    """A dependency, so that a test can put another queue in its place."""
    return queue


async def transaction() -> AsyncIterator[AsyncSession]:
    """One transaction for each request: committed if the endpoint returns, rolled back if it raises."""
    async with sessions() as session, session.begin():
        yield session


# scope="function": the commit comes before the answer. By default FastAPI answers first, and a client would be told of
# an order whose commit then fails.
Transaction = Annotated[AsyncSession, Depends(transaction, scope="function")]
Queue = Annotated[JobQueue, Depends(the_queue)]

app = FastAPI(lifespan=lifespan)
password = os.environ.get("SHOP_OPS_PASSWORD")
if password:
    app.mount("/ops/jobs", Dashboard(queue, auth=BasicAuth({"ops": password}, operators={"ops"})))


@app.post("/orders", status_code=202)
async def order(email: str, session: Transaction, jobs: Queue) -> dict[str, object]:
    row = Order(email=email)
    session.add(row)
    await session.flush()  # gives the row its id
    job = await jobs.apush(confirm.bind(row.id), session=session)
    if "@" not in email:
        raise HTTPException(422, "this is no address")  # neither the order nor its job is stored
    return {"order": row.id, "job": job}


@app.get("/orders/{number}")
async def show(number: int, session: Transaction) -> dict[str, object]:
    row = await session.get(Order, number)
    if row is None:
        raise HTTPException(404, "there is no such order")
    return {"order": row.id, "email": row.email, "is_confirmed": row.is_confirmed}
