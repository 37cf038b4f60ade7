# pyright: strict
"""Mistakes, one on each line that has a number: what pyright and mypy should see before the program runs.

It is not run. `check_types.py` says which of them each checker sees today; the rest is refused at run time, by `push`
or where the job is defined.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from protojobs import Cron, Job, JobContext, JobQueue, Retry, Scheduler, job


class Mail(TypedDict):
    to: str


@dataclass
class Invoice:
    number: int


class SendMail(Job[Mail]):
    def handle(self, data: Mail) -> None: ...


class SendInvoice(Job[Invoice]):
    def handle(self, data: Invoice) -> None: ...


@job
def add(a: int, b: int) -> int:
    return a + b


@job
def report(context: JobContext, pages: int) -> None: ...


# ------------------------------------------------------------------------------------------------ how a job is written


class Misspelt(Job[Mail]):
    executer = "process"  # 1: an option misspelt. A class may have any attribute

    def handle(self, data: Mail) -> None: ...


class Handel(Job[Mail]):
    def handel(self, data: Mail) -> None: ...  # 2: a method misspelt. A class may have any method


class OtherData(Job[Mail]):
    def handle(self, data: int) -> None: ...  # 3: handle takes another type than the job declares


class HighPriority(Job[Mail]):
    priority = "high"  # 4: priority is a number

    def handle(self, data: Mail) -> None: ...


class Forked(Job[Mail]):
    executor = "fork"  # 5: there are threads and processes

    def handle(self, data: Mail) -> None: ...


@job
def any_number(*numbers: int) -> None: ...  # 6: data travels by name


@job(executer="process")  # 7: an option misspelt
def misspelt() -> None: ...


@job(max_retrys=3)  # 8: another one
def often() -> None: ...


@job(priority="high")  # 9: priority is a number
def high() -> None: ...


@job(executor="fork")  # 10: there are threads and processes
def forked() -> None: ...


@job(cron=Cron("0 3 * * *", timezon="Europe/Paris"))  # 11: an option of a schedule misspelt
def nightly() -> None: ...


# ------------------------------------------------------------------------------------------------ how it is pushed


def push(queue: JobQueue, session: Session, asession: AsyncSession) -> None:
    queue.push(SendMail, {"too": "jo@example.com"})  # 12: a wrong key
    queue.push(SendMail, 42)  # 13: data of another type
    queue.push(SendMail)  # 14: no data
    queue.push(add)  # 15: no arguments
    queue.push(add(1, 2))  # 16: called instead of bound
    queue.push(print)  # 17: a function that is no job
    queue.push(lambda: 3)  # 18: another one
    queue.push(add, 1)  # 19: arguments as RQ takes them
    queue.push(add.bind(1, 2), {"b": 3})  # 20: data beside bound arguments
    queue.push(add.bind(1))  # 21: too few arguments
    queue.push(add.bind(1, "2"))  # 22: an argument of another type
    queue.push(add.bind(a=1, c=2))  # 23: a wrong name
    queue.push(report.bind("three"))  # 24: an argument of another type, behind the context
    queue.push(add.bind(1, 2), session=asession)  # 25: a session for apush
    queue.push(add.bind(1, 2), session="nonsense")  # 26: no session at all
    queue.push(add.bind(1, 2), sesion=session)  # 27: an argument misspelt
    queue.push_many([1, 2, 3])  # 28: no jobs
    add.delay(1, 2)  # 29: Celery's way to push
    queue.later(SendMail, {"to": "jo@example.com"})  # 30: the delay comes first


async def apush(queue: JobQueue, session: Session) -> None:
    await queue.apush(SendMail, {"to": "jo@example.com"}, session=session)  # 31: a session for push


def schedule(scheduler: Scheduler) -> None:
    scheduler.daily(SendMail, {"to": 3})  # 32: data of another type


# ------------------------------------------------------------------------------------------------ how it runs


def run(context: JobContext) -> Retry:
    return Retry("soon")  # 33: a delay is in seconds, or a timedelta
