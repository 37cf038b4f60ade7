"""An application that stores rows and jobs together, and jobs that store effects and their own completion together.

`python -m faults.transacting '{"url": ..., "seed": ..., "count": ...}'` is the application: so many transactions, one
after the other. As a preloading web server does, it forks the process that makes them; that one is killed by SIGKILL at
points of some transactions, and at a random time in any case, and another goes on. The journal tells of each before it
begins, and its outcome once that is known. `protojobs worker --app faults.transacting` runs the jobs.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from protojobs import JobContext, JobQueue, create_driver, job
from protojobs.entropy import fresh_id
from protojobs.errors import StoreUnavailable

from .history import Journal
from .jobs import FOLDER_VARIABLE, WORKER_VARIABLE, PlannedFailure

__all__ = ["ENDS", "TABLES", "Effect", "complete_async", "complete_plain"]

TABLES = (
    "create table orders (job varchar(40) not null)",
    "create table effects (job varchar(40) not null, claim_seq int not null)",  # nothing unique: doubles must show
)
DRIVERS = {
    "sqlite": ("sqlite+pysqlite", "sqlite+aiosqlite"),
    "postgresql": ("postgresql+psycopg", "postgresql+psycopg"),
    "mysql": ("mysql+pymysql", "mysql+asyncmy"),
    "mariadb": ("mariadb+pymysql", "mariadb+asyncmy"),
}
STYLES = ("session", "own session", "connection", "async session", "async connection")
ENDS = ("commit", "roll back", "raise", "savepoint")  # the last: in a savepoint that is rolled back, then committed
DEATHS = ("begun", "half done", "done", "committing", "ended")
DEATH_SHARE = 0.04  # of the transactions
COMMIT_S = 0.004  # the longest a process lives on after it has begun to commit, where it is to die in that
ATTEMPTS = 200  # a crash of the server spends one of each job in its transaction

ORDER = text("insert into orders (job) values (:job)")
EFFECT = text("insert into effects (job, claim_seq) values (:job, :claim_seq)")


def die(after_s: float = 0.0) -> None:
    """kill -9, by the process itself."""
    if after_s:
        timer = threading.Timer(after_s, die)
        timer.daemon = True
        timer.start()
    else:
        os.kill(os.getpid(), signal.SIGKILL)


async def awaited(value: object) -> object:
    """One story for both kinds of connection: what is no coroutine has been done already."""
    return await value if inspect.isawaitable(value) else value


@functools.cache
def engine_of(url: str) -> Engine:
    """One of the application's own, which outlives a restart of the server."""
    parts = make_url(url)
    return create_engine(parts.set(drivername=DRIVERS[parts.get_backend_name()][0]), pool_pre_ping=True)


@functools.cache
def async_engine_of(url: str) -> AsyncEngine:
    """The same for coroutines."""
    parts = make_url(url)
    return create_async_engine(parts.set(drivername=DRIVERS[parts.get_backend_name()][1]), pool_pre_ping=True)


# ------------------------------------------------------------------------------------------------- the application


@job(name="faults.receipt", queue="stored")
def receipt(number: int) -> None:
    """What the application pushes; nobody runs it."""


@dataclass(frozen=True)
class Transaction:
    """What one of them shall be."""

    number: int
    job: str
    style: str
    end: str
    pushes_first: bool
    dies: str  # one of DEATHS, or not at all


class Application:
    """Makes transactions, each an order and the job that goes with it."""

    def __init__(self, url: str, seed: int, life_s: float) -> None:
        self.url = url
        self.dice = random.Random(seed)
        self.life_s = life_s  # the longest of a process; after a random part of it a timer kills it, wherever it is
        self.name = os.environ[WORKER_VARIABLE]
        self.folder = Path(os.environ[FOLDER_VARIABLE])

    def live(self, count: int) -> int:
        """As many lives as it takes; how many ended by a kill. Raises when one ends otherwise."""
        for deaths in itertools.count():
            seed = self.dice.getrandbits(64)
            left = count - self.begun()
            if left == 0:
                return deaths
            if (child := os.fork()) == 0:
                with leaving():
                    die(random.Random(~seed).uniform(0, self.life_s))
                    asyncio.run(Life(self.url, random.Random(seed), Journal(self.folder, name=self.name)).run(left))
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if status != -signal.SIGKILL:
                if status != 0:
                    raise RuntimeError(f"the application ended with {status}")
                return deaths
        raise AssertionError

    def begun(self) -> int:
        """How many transactions there were so far."""
        journal = self.folder / f"{self.name}.journal"
        return journal.read_text().count('{"what": "transaction"') if journal.exists() else 0


@contextmanager
def leaving() -> Iterator[None]:
    """End the process with the block, without what belongs to its parent."""
    try:
        yield
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


class Life:
    """One process of the application."""

    def __init__(self, url: str, dice: random.Random, journal: Journal) -> None:
        self.dice = dice
        self.journal = journal
        self.queue = JobQueue(create_driver(url))
        own: Engine = self.queue.driver.engine  # type: ignore[attr-defined]
        engine, async_engine = engine_of(url), async_engine_of(url)
        self.places: dict[str, Callable[[], object]] = {
            "session": lambda: Session(engine),
            "own session": lambda: Session(own),
            "connection": engine.connect,
            "async session": lambda: AsyncSession(async_engine),
            "async connection": async_engine.connect,
        }

    async def run(self, count: int) -> None:
        """So many, or until it is killed."""
        for number in range(count):
            await self.perform(self.drawn(number))

    def drawn(self, number: int) -> Transaction:
        """What the dice say."""
        style = self.dice.choices(STYLES, (30, 20, 20, 20, 10))[0]
        end = self.dice.choices(ENDS, (70, 12, 12, 6))[0]
        if end == "savepoint" and style != "own session":  # sqlite3's own way of beginning knows no savepoints
            end = "commit"
        dies = self.dice.choice(DEATHS) if self.dice.random() < DEATH_SHARE else ""
        return Transaction(number, fresh_id(), style, end, self.dice.random() < 0.5, dies)

    async def perform(self, transaction: Transaction) -> None:
        """One transaction, and what came of it as far as can be told."""
        facts = {"id": transaction.job, "style": transaction.style, "end": transaction.end, "dies": transaction.dies}
        self.journal.write("transaction", **facts)
        is_committing = False
        try:
            async with AsyncExitStack() as stack:
                place = self.places[transaction.style]()
                if hasattr(place, "__aenter__"):
                    place = await stack.enter_async_context(place)  # type: ignore[arg-type]
                else:
                    place = stack.enter_context(place)  # type: ignore[arg-type]
                self.reached("begun", transaction)
                await self.fill(place, transaction)
                if transaction.end == "raise":
                    raise PlannedFailure
                if transaction.end == "roll back":
                    await awaited(place.rollback())
                else:
                    self.reached("committing", transaction)
                    is_committing = True
                    await awaited(place.commit())
            outcome = "rolled back" if transaction.end in ("roll back", "savepoint") else "committed"
        except PlannedFailure:
            outcome = "rolled back"
        except (StoreUnavailable, DBAPIError, OSError) as error:
            # A commit without an answer may have been one. Before that there was nothing to commit.
            outcome = "unknown" if is_committing and transaction.end == "commit" else "rolled back"
            self.journal.write("refused", id=transaction.job, error=repr(error)[:300])
            time.sleep(0.02)  # while the server is away
        self.reached("ended", transaction)
        self.journal.write(outcome, id=transaction.job)

    async def fill(self, place: object, transaction: Transaction) -> None:
        """The order and its job, in either order."""
        inner = await awaited(place.begin_nested()) if transaction.end == "savepoint" else None  # type: ignore[attr-defined]
        is_async = isinstance(place, AsyncSession | AsyncConnection)
        push = self.queue.apush if is_async else self.queue.push
        steps: list[Callable[[], object]] = [
            lambda: place.execute(ORDER, {"job": transaction.job}),  # type: ignore[attr-defined]
            lambda: push(receipt.bind(transaction.number), id=transaction.job, session=place),
        ]
        if transaction.pushes_first:
            steps.reverse()
        await awaited(steps[0]())
        self.reached("half done", transaction)
        await awaited(steps[1]())
        if inner is not None:
            await awaited(inner.rollback())  # type: ignore[attr-defined]
        self.reached("done", transaction)

    def reached(self, point: str, transaction: Transaction) -> None:
        """Die here, if this is the point."""
        if transaction.dies == point:
            die(self.dice.uniform(0.0001, COMMIT_S) if point == "committing" else 0.0)


# --------------------------------------------------------------------------------------------------------- the jobs


@dataclass(frozen=True)
class Effect:
    """How one job behaves: the longest pause before each of its steps, and its trouble."""

    pause_s: float
    trouble: str = ""  # `raises` after the commit; `rolls back`, `gives up` the first attempt


@functools.cache
def _journal() -> Journal:
    return Journal(Path(os.environ[FOLDER_VARIABLE]))


def _begin(ctx: JobContext) -> random.Random:
    _journal().write("start", id=ctx.id, claim_seq=ctx.claim_seq, worker=os.environ[WORKER_VARIABLE])
    return random.Random(f"{ctx.id} {ctx.claim_seq}")


@job(name="faults.complete_plain", queue="work", max_retries=ATTEMPTS, backoff=[0.05], timeout=0)
def complete_plain(effect: Effect, ctx: JobContext) -> None:
    """In a thread of the worker."""
    dice = _begin(ctx)
    time.sleep(dice.uniform(0, effect.pause_s))
    with Session(engine_of(os.environ["PROTOJOBS_URL"])) as session:
        steps: list[Callable[[], object]] = [
            lambda: session.execute(EFFECT, {"job": ctx.id, "claim_seq": ctx.claim_seq}),
            lambda: ctx.complete_in(session),
        ]
        for step in dice.sample(steps, 2):
            step()
            time.sleep(dice.uniform(0, effect.pause_s))
        if effect.trouble == "rolls back" and ctx.attempt == 1:
            session.rollback()
            return
        if effect.trouble == "gives up" and ctx.attempt == 1:
            raise PlannedFailure("before the commit")
        session.commit()
    time.sleep(dice.uniform(0, effect.pause_s))
    if effect.trouble == "raises":
        raise PlannedFailure("after the commit")


@job(name="faults.complete_async", queue="work", max_retries=ATTEMPTS, backoff=[0.05], timeout=0)
async def complete_async(effect: Effect, ctx: JobContext) -> None:
    """On the worker's event loop."""
    dice = _begin(ctx)
    await asyncio.sleep(dice.uniform(0, effect.pause_s))
    async with AsyncSession(async_engine_of(os.environ["PROTOJOBS_URL"])) as session:
        steps: list[Callable[[], object]] = [
            lambda: session.execute(EFFECT, {"job": ctx.id, "claim_seq": ctx.claim_seq}),
            lambda: ctx.acomplete_in(session),
        ]
        for step in dice.sample(steps, 2):
            await awaited(step())
            await asyncio.sleep(dice.uniform(0, effect.pause_s))
        if effect.trouble == "rolls back" and ctx.attempt == 1:
            await session.rollback()
            return
        if effect.trouble == "gives up" and ctx.attempt == 1:
            raise PlannedFailure("before the commit")
        await session.commit()
    await asyncio.sleep(dice.uniform(0, effect.pause_s))
    if effect.trouble == "raises":
        raise PlannedFailure("after the commit")


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    application = Application(str(asked["url"]), int(asked["seed"]), float(asked["life_s"]))
    killed = application.live(int(asked["count"]))
    Journal(application.folder, name=application.name).write("lived", killed=killed)
