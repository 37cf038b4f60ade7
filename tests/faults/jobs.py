"""What fault workers run (`protojobs worker --app faults.jobs`): jobs that write what they do, before they do it."""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from protojobs import JobContext, Snooze, events, job

from .history import End, Journal

__all__ = [
    "FOLDER_VARIABLE",
    "MAX_RETRIES",
    "RETRY_DELAY_S",
    "WORKER_VARIABLE",
    "Plan",
    "act",
    "act_async",
    "act_apart",
    "finish",
    "journal",
    "tick",
    "write",
]

FOLDER_VARIABLE = "FAULTS_FOLDER"  # of the journals
WORKER_VARIABLE = "FAULTS_WORKER"  # how the history names this worker; its child processes inherit it
MAX_RETRIES = 3
RETRY_DELAY_S = 0.2
SNOOZE_S = 0.3


class PlannedFailure(Exception):
    """What a job raises that was meant to."""


@dataclass(frozen=True)
class Plan:
    """What one job is to do."""

    takes_s: float
    fails: int = 0  # its first attempts; more than it has is to fail for good
    snoozes: bool = False  # the first time that it is lent


@functools.cache
def journal() -> Journal:
    """This process's own."""
    return Journal(Path(os.environ[FOLDER_VARIABLE]))


def write(what: str, ctx: JobContext, **facts: object) -> None:
    """Write that down about this run."""
    run = {"id": ctx.id, "claim_seq": ctx.claim_seq, "attempt": ctx.attempt}
    journal().write(what, worker=os.environ[WORKER_VARIABLE], **run, **facts)


def finish(plan: Plan, ctx: JobContext) -> Snooze | None:
    """End the run as it was planned."""
    if plan.snoozes and ctx.claim_seq == 1:
        write("finish", ctx, end=End.SNOOZED.value, again_in=SNOOZE_S)
        return Snooze(SNOOZE_S)
    if ctx.attempt <= plan.fails:
        # "exponential, jitter 0 to +25 %": not sooner than this
        write("finish", ctx, end=End.FAILED.value, again_in=RETRY_DELAY_S * 2 ** (ctx.attempt - 1))
        raise PlannedFailure(f"attempt {ctx.attempt} of {plan.fails} that fail")
    write("finish", ctx, end=End.OK.value)
    return None


@job(name="faults.act", queue="work", max_retries=MAX_RETRIES, retry_delay=RETRY_DELAY_S, timeout=0)
def act(plan: Plan, ctx: JobContext) -> Snooze | None:
    """In a thread of the worker."""
    write("start", ctx)
    try:
        for _ in range(max(1, round(plan.takes_s / 0.05))):  # in steps: a thread is interrupted between two of them
            time.sleep(min(plan.takes_s, 0.05))
    except BaseException:
        write("finish", ctx, end=End.CUT.value)
        raise
    return finish(plan, ctx)


@job(name="faults.act_async", queue="work", max_retries=MAX_RETRIES, retry_delay=RETRY_DELAY_S, timeout=0)
async def act_async(plan: Plan, ctx: JobContext) -> Snooze | None:
    """On the worker's event loop."""
    write("start", ctx)
    try:
        await asyncio.sleep(plan.takes_s)
    except asyncio.CancelledError:
        write("finish", ctx, end=End.CUT.value)
        raise
    return finish(plan, ctx)


@job(
    name="faults.act_apart",
    queue="work",
    executor="process",
    max_retries=MAX_RETRIES,
    retry_delay=RETRY_DELAY_S,
    timeout=0,
)
def act_apart(plan: Plan, ctx: JobContext) -> Snooze | None:
    """In a child process of the worker."""
    return act(plan, ctx)


@job(name="faults.tick", queue="work", max_retries=MAX_RETRIES, retry_delay=RETRY_DELAY_S, timeout=0)
def tick(ctx: JobContext) -> None:
    """What the schedules of fault runs fire."""
    write("start", ctx)
    finish(Plan(0.0), ctx)


def _note(name: str) -> Callable[[events.Event], None]:
    def note(event: events.Event) -> None:
        journal().write(name, worker=os.environ[WORKER_VARIABLE], id=event.get("job_id"), late_s=event.get("late_s"))

    return note


def _note_time(event: events.ScheduleFired | events.ScheduleMissed) -> None:
    due_at = event.due_at.isoformat()
    journal().write(event.event_name, worker=os.environ[WORKER_VARIABLE], id=event.schedule_id, due_at=due_at)


if WORKER_VARIABLE in os.environ:
    events.on("schedule.fired", _note_time)
    events.on("schedule.missed", _note_time)
    for _name in ("job.late", "job.lost", "worker.degraded", "worker.starting"):
        events.on(_name, _note(_name))
