"""What the workers of a soak run, besides the jobs of jobs.py: jobs that leak, crash, fork and hold sessions.

`protojobs worker --app faults.soaking:queue`. On SQL the queue is on the application's own engine, with few
connections, which jobs hold for longer than a lease: no heartbeat and no claim may wait for them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time

from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from protojobs import JobContext, JobQueue, Snooze, create_driver, job
from protojobs_sqlalchemy import SQLAlchemyDriver

from .history import End
from .jobs import MAX_RETRIES, RETRY_DELAY_S, Plan, act, act_apart, act_async, finish, journal, write
from .transacting import DRIVERS

__all__ = ["KINDS", "LEAKY_QUEUE", "LIVES_ON", "SQL_KINDS", "queue"]

LEAKY_QUEUE = "leaky"
LIVES_ON = "a copy lives on"  # what the journal says of a forked copy of a run that has not ended
POOL_SIZE = 4  # of the application's engine; a worker has more slots
POOL_WAIT_S = 600.0  # no job of a soak is to fail for want of a connection
COPY_GONE_S = 20.0
LEAK_BYTES = 1024 * 1024

_leaked: list[object] = []


def _engine() -> Engine | None:
    """The application's own, where the store is one of SQL."""
    url = make_url(os.environ["PROTOJOBS_URL"])
    if (driver := DRIVERS.get(url.get_backend_name())) is None:
        return None
    return create_engine(
        url.set(drivername=driver[0]),
        pool_size=POOL_SIZE,
        max_overflow=0,
        pool_timeout=POOL_WAIT_S,
        pool_pre_ping=True,
    )


def _queue() -> JobQueue:
    driver = create_driver(os.environ["PROTOJOBS_URL"]) if engine is None else SQLAlchemyDriver(engine)
    return JobQueue(driver)


if "PROTOJOBS_URL" in os.environ:  # a worker's; the producer only names the jobs
    engine = _engine()
    queue = _queue()


# ---------------------------------------------------------------------------------------------------------- leaking


def _leak() -> None:
    _leaked.append(bytearray(LEAK_BYTES))
    _leaked.append(os.open(os.devnull, os.O_RDONLY))
    threading.Thread(target=threading.Event().wait, args=(120.0,), daemon=True).start()


@job(
    name="faults.leak_apart",
    queue="work",
    executor="process",
    max_retries=MAX_RETRIES,
    retry_delay=RETRY_DELAY_S,
    timeout=0,
)
def leak_apart(plan: Plan, ctx: JobContext) -> Snooze | None:
    """Keep memory, a descriptor and a thread in a child process: the worker itself must stay level."""
    write("start", ctx)
    _leak()
    return finish(plan, ctx)


@job(name="faults.leak_here", queue=LEAKY_QUEUE, max_retries=MAX_RETRIES, retry_delay=RETRY_DELAY_S, timeout=0)
def leak_here(plan: Plan, ctx: JobContext) -> Snooze | None:
    """Keep memory in the worker, which has a limit: it ends, its jobs done, and its supervisor starts another."""
    write("start", ctx)
    _leaked.append(bytearray(8 * LEAK_BYTES))
    try:
        for _ in range(max(1, round(plan.takes_s / 0.05))):
            time.sleep(0.05)
    except BaseException:
        write("finish", ctx, end=End.CUT.value)
        raise
    return finish(plan, ctx)


# --------------------------------------------------------------------------------------------------------- crashing


@job(
    name="faults.crash",
    queue="work",
    executor="process",
    max_retries=MAX_RETRIES,
    retry_delay=RETRY_DELAY_S,
    timeout=0,
)
def crash(plan: Plan, ctx: JobContext) -> Snooze | None:
    """Take its child process down, where others would only fail."""
    write("start", ctx)
    if ctx.attempt <= min(plan.fails, 2):  # a third time would be the last
        write("finish", ctx, end=End.FAILED.value, again_in=RETRY_DELAY_S * 2 ** (ctx.attempt - 1))
        os.kill(os.getpid(), signal.SIGKILL)
    write("finish", ctx, end=End.OK.value)
    return None


# ---------------------------------------------------------------------------------------------------------- forking


def _fork_and_leave(how: int) -> int:
    """Fork; the copy leaves the job as scripts do. Answers its pid to the original."""
    copy = os.fork()
    if copy == 0:
        if how == 0:
            sys.exit(0)
        if how == 1:
            raise RuntimeError("the copy has failed")
    return copy


def _gone(copy: int) -> bool:
    return os.waitpid(copy, os.WNOHANG)[0] == copy


def _told(copy: int, ctx: JobContext) -> None:
    journal().write(LIVES_ON, id=ctx.id, copy=copy)
    os.kill(copy, signal.SIGKILL)
    os.waitpid(copy, 0)


def _fork_and_wait(plan: Plan, ctx: JobContext) -> Snooze | None:
    write("start", ctx)
    copy = _fork_and_leave(ctx.claim_seq % 3)
    if copy == 0:
        return None  # the copy returns, too
    ends = time.monotonic() + COPY_GONE_S
    try:
        while not _gone(copy):
            if time.monotonic() > ends:
                _told(copy, ctx)
                break
            time.sleep(0.02)
    except BaseException:
        write("finish", ctx, end=End.CUT.value)
        raise
    return finish(plan, ctx)


@job(name="faults.fork", queue="work", max_retries=MAX_RETRIES, retry_delay=RETRY_DELAY_S, timeout=0)
def fork_here(plan: Plan, ctx: JobContext) -> Snooze | None:
    """In a thread of the worker."""
    return _fork_and_wait(plan, ctx)


@job(
    name="faults.fork_apart",
    queue="work",
    executor="process",
    max_retries=MAX_RETRIES,
    retry_delay=RETRY_DELAY_S,
    timeout=0,
)
def fork_apart(plan: Plan, ctx: JobContext) -> Snooze | None:
    """In a child process of the worker."""
    return _fork_and_wait(plan, ctx)


@job(name="faults.fork_async", queue="work", max_retries=MAX_RETRIES, retry_delay=RETRY_DELAY_S, timeout=0)
async def fork_async(plan: Plan, ctx: JobContext) -> Snooze | None:
    """On the worker's event loop."""
    write("start", ctx)
    copy = _fork_and_leave(ctx.claim_seq % 3)
    if copy == 0:
        return None
    ends = time.monotonic() + COPY_GONE_S
    try:
        while not _gone(copy):
            if time.monotonic() > ends:
                _told(copy, ctx)
                break
            await asyncio.sleep(0.02)
    except asyncio.CancelledError:
        write("finish", ctx, end=End.CUT.value)
        raise
    return finish(plan, ctx)


# --------------------------------------------------------------------------------------------------------- sessions


@job(name="faults.hold", queue="work", max_retries=MAX_RETRIES, retry_delay=RETRY_DELAY_S, timeout=0)
def hold(plan: Plan, ctx: JobContext) -> Snooze | None:
    """Hold a connection of the application's pool for `takes_s`. There are more such jobs than connections."""
    write("start", ctx)
    assert engine is not None
    try:
        with engine.connect() as connection:
            ends = time.monotonic() + plan.takes_s
            while time.monotonic() < ends:
                connection.execute(text("select 1"))
                connection.rollback()  # an open snapshot is another matter
                time.sleep(0.1)
    except SQLAlchemyError:  # the store was away; the job is about the connection, not about what it asks
        pass
    except BaseException:
        write("finish", ctx, end=End.CUT.value)
        raise
    return finish(plan, ctx)


KINDS = {
    "thread": act,
    "async": act_async,
    "process": act_apart,
    "leak": leak_apart,
    "crash": crash,
    "fork": fork_here,
    "fork apart": fork_apart,
    "fork async": fork_async,
    "leak here": leak_here,
}
SQL_KINDS = {**KINDS, "hold": hold}
