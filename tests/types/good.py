# pyright: strict
"""A program with all that can be pushed, and no mistake: pyright (strict) and mypy (strict) must have nothing to say.

It is not run. `check_types.py` reads it, and `mistakes.py`, with both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypedDict

import msgspec
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from protojobs import Backoff, BoundJob, Cron, Discard, Job, JobContext, JobId, JobQueue, Retry, Scheduler, Snooze, job


class Mail(TypedDict):
    to: str


@dataclass
class Invoice:
    number: int
    copies: int = 1


class Parcel(msgspec.Struct):
    number: int


class SendMail(Job[Mail]):
    queue = "emails"
    max_retries = 5
    backoff = Backoff(delays=(2, 4))
    retry_on = (OSError,)

    def handle(self, data: Mail) -> Snooze | Retry | Discard | None:
        return Discard("nobody") if not data["to"] else None

    def failed(self, exception: BaseException, data: Mail) -> None:
        print(exception, data["to"])

    def retry_in(self, attempt: int, exception: BaseException) -> float | timedelta | None:
        return timedelta(seconds=attempt)


class SendInvoice(Job[Invoice]):
    executor = "process"

    def handle(self, data: Invoice, context: JobContext) -> None:
        context.progress(0.5)


class SendParcel(Job[Parcel]):
    async def handle(self, data: Parcel) -> None: ...


class Note(Job):
    def handle(self, data: dict[str, object]) -> None: ...


class Tidy(Job):
    cron = Cron("0 3 * * *", timezone="Europe/Paris")

    def handle(self, data: object) -> None: ...


class Lines(Job[list[str]]):
    def handle(self, data: list[str]) -> None: ...


class Counts(Job):
    def handle(self, data: Mapping[str, int]) -> None: ...


@job
def add(a: int, b: int = 2) -> int:
    return a + b


@job(name="tidy", queue="slow", priority=-5, timeout=timedelta(minutes=2), retry_on=(OSError,), cron="@daily")
def tidy() -> None: ...


@job
def report(context: JobContext, pages: int, title: str = "") -> str:
    context.log.info("%d pages", pages)
    return title


@job(queue="slow")
async def areport(context: JobContext, pages: int) -> int:
    return pages if context.attempt == 1 else 0


@job(executor="process", exclusive=True)
def with_text(text: str, *, times: int = 1) -> str:
    return text * times


@job
def whatever(value: object, other: int) -> None: ...


def push(queue: JobQueue, session: Session, connection: Connection, scoped: scoped_session[Session]) -> list[str]:
    bound: BoundJob = add.bind(1, b=3)
    ids: list[str] = [
        queue.push(SendMail, {"to": "jo@example.com"}),
        queue.push(SendMail(), {"to": "jo@example.com"}, session=session),
        queue.push(SendMail().on_queue("fast").retries(2), Mail(to="jo@example.com"), id="..."),
        queue.push(SendMail.bind({"to": "jo@example.com"})),
        queue.push(SendInvoice, Invoice(7), session=connection),
        queue.push(SendInvoice, {"number": 7}),
        queue.push(SendParcel, Parcel(7)),
        queue.push(SendParcel(), {"number": 7}, session=scoped),
        queue.push(Note),
        queue.push(Note, {"order": 7}),
        queue.push(Tidy()),
        queue.push(Tidy, 3),
        queue.push(Lines, ["a", "b"]),
        queue.push(Counts),
        queue.push(bound),
        queue.push(bound.with_priority(3).retry_after(1.5).with_timeout(timedelta(seconds=3))),
        queue.push(add, {"a": 1, "b": 2}),
        queue.push(add.on_queue("fast").bind(1)),
        queue.push(tidy),
        queue.push(tidy.bind()),
        queue.push(report.bind(3, title="x")),
        queue.push(report.on_queue("fast").bind(pages=3)),
        queue.push(areport.bind(3)),
        queue.push(with_text.bind("a", times=2)),
        queue.push(whatever.bind([1], other=2)),
        queue.push("mail.send"),
        queue.push("mail.send", ["anything"], session=session),
        queue.later(60, SendMail, {"to": "jo@example.com"}),
        queue.later("2030-01-31 12:00", bound, session=session),
        queue.later(timedelta(hours=1), tidy),
        queue.later(datetime.now(UTC), SendInvoice, {"number": 7}),
    ]
    ids += queue.push_many(add.bind(number) for number in range(10))
    ids += queue.push_many(
        [(SendMail, {"to": "jo@example.com"}), add.bind(1), tidy, Note, ("name", 3)], session=session
    )
    ids += queue.push_many([(Lines(), ["a"]), (add, {"a": 1})])
    return ids


def results(queue: JobQueue) -> int:
    total: int = queue.wait_for(queue.push(add.bind(1)), timeout=30)
    pages: int = queue.result(queue.later(5, areport.bind(3)))
    nothing: None = queue.wait_for(queue.push(tidy), timeout=30)
    print(nothing, queue.wait_for(queue.push("mail.send"), 30), queue.result("some id"))
    return total + pages


async def aresults(queue: JobQueue) -> str:
    job_id: JobId[str] = await queue.apush(report.bind(3))
    print(await queue.aresult(job_id), [one.progress async for one in queue.awatch(job_id)])
    return await queue.await_for(job_id, timeout=30)


def what_comes_next(context: JobContext) -> list[str]:
    return [
        context.then(add.bind(1)),
        context.then(tidy, delay=timedelta(hours=1)),
        context.then(SendMail, {"to": "jo@example.com"}, delay=60),
        context.then("mail.send", ["anything"]),
    ]


async def apush(
    queue: JobQueue,
    session: AsyncSession,
    connection: AsyncConnection,
    scoped: async_scoped_session[AsyncSession],
) -> None:
    await queue.apush(SendMail, {"to": "jo@example.com"}, session=session)
    await queue.apush(SendInvoice, {"number": 3}, session=connection)
    await queue.apush(tidy, session=scoped)
    await queue.alater(60, add.bind(1), session=session)
    await queue.alater(60, SendMail, {"to": "jo@example.com"})
    await queue.apush_many([add.bind(1), (SendMail, {"to": "jo@example.com"})], session=session)


def schedule(scheduler: Scheduler) -> None:
    scheduler.in_(SendMail, 5, {"to": "jo@example.com"})
    scheduler.at(add.bind(1), datetime.now(UTC))
    scheduler.every(SendMail, timedelta(minutes=5), {"to": "jo@example.com"}, misfire="skip")
    scheduler.every_minute(tidy)
    scheduler.hourly(SendInvoice, Invoice(7), minute=5)
    scheduler.daily(SendMail, {"to": "jo@example.com"}, "02:00", timezone="Europe/Paris")
    scheduler.daily(add, {"a": 1})
    scheduler.daily(SendInvoice.bind(Invoice(7)), at="02:30")
    scheduler.weekly(Note, {"order": 7}, "monday", "02:00")
    scheduler.cron("mail.send", "0 9 * * mon", ["anything"], id="nine", catch_up=60)


async def aschedule(scheduler: Scheduler) -> None:
    await scheduler.ain_(SendMail, 5, {"to": "jo@example.com"})
    await scheduler.adaily(SendMail, {"to": "jo@example.com"}, at="02:00", timezone="Europe/Paris")
    await scheduler.acron(add, "0 9 * * mon", {"a": 1})
    await scheduler.aevery(tidy, 60)


def call(context: JobContext) -> int:
    report(context, 3, title="x")
    return add(1, 2)


def in_a_transaction(context: JobContext, session: Session, connection: Connection) -> None:
    context.complete_in(session)
    context.complete_in(connection)


async def in_one_of_coroutines(context: JobContext, session: AsyncSession) -> None:
    await context.acomplete_in(session)
