"""The shop's table, and its sessions. `python -m shop.tables` creates the table."""

import asyncio
import os

from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# The jobs are in the shop's own database: only so can one transaction hold an order and its job.
url = make_url(os.environ["PROTOJOBS_URL"]).set(drivername="postgresql+asyncpg")
engine = create_async_engine(url)
sessions = async_sessionmaker(engine)


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    is_confirmed: Mapped[bool] = mapped_column(default=False)


async def create() -> None:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(create())
