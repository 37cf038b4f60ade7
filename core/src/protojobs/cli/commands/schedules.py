"""`protojobs schedules`: list, show, explain, pause, resume, run and remove schedules."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice

import click

from protojobs.cli.acting.confirmation import YES, confirm
from protojobs.cli.exits import CommandFailed, Exit
from protojobs.cli.option_types import duration
from protojobs.cli.options import StoreCommand
from protojobs.cli.other_tools import ForeignNamesGroup
from protojobs.cli.session import Session
from protojobs.cli.showing.schedule_views import SeenSchedule, moment_item, moments, moments_block
from protojobs.cli.showing.tables import Cell, Column
from protojobs.cli.showing.text import counted, pretty_json
from protojobs.clock import SYSTEM_CLOCK
from protojobs.errors import OptionInvalid, ScheduleUnreadable, StoreUnavailable, did_you_mean
from protojobs.names import check_zone
from protojobs.port.schedules import UnreadableSchedule
from protojobs.queue.queue import JobQueue
from protojobs.scheduler.scheduler import Scheduler
from protojobs.timetable.cron import check_cron
from protojobs.timetable.timetable import Timetable, interval_spec

__all__ = ["command"]

OVERDUE = timedelta(minutes=1)  # a schedule that nobody fired for so long: probably nobody ticks
_SHOWN = 5  # times of one schedule
_SUGGESTED_MAX = 1_000  # ids that one with a slip in it is compared with
_COLUMNS = (
    Column("id", "id"),
    Column("job"),
    Column("when"),
    Column("zone"),
    Column("state", "state"),
    Column("next due", "time"),
    Column("last due", "time"),
)
_TIMES = (Column("id", "id"), Column("due", "time"), Column("in its zone", "id"), Column("here", "id"))
_ID = click.argument("schedule_id", metavar="ID")
_NUMBER = click.IntRange(1, 1_000)


@click.group("schedules", cls=ForeignNamesGroup, short_help="List, explain, pause and run schedules.")
def command() -> None:
    """List, explain, pause, resume, run and remove schedules: what makes jobs again and again."""


@command.command("list", cls=StoreCommand)
@click.pass_obj
def list_schedules(session: Session) -> None:
    """List the schedules, by id.

    Columns: id, job, when in words, its zone, active, paused, ended, broken (its expression or zone means nothing here)
    or unreadable (a newer release stored it, or a foreign hand), when it is due next, and the last time that fired or
    was passed over.
    """
    jobs = session.queue()
    now = jobs.driver.now()
    pages = list(Scheduler(jobs).pages())
    schedules = [SeenSchedule(one) for page in pages for one in page.schedules]
    unreadable = [one for page in pages for one in page.unreadable]
    items = {seen.schedule.id: seen.item() for seen in schedules}
    items |= {one.id: _unreadable_item(one) for one in unreadable}
    rows: dict[str, list[Cell]] = {
        seen.schedule.id: [
            seen.schedule.id,
            seen.schedule.job_name,
            seen.words,
            seen.schedule.timezone,
            seen.state,
            seen.next_due_at,
            seen.schedule.last_due_at,
        ]
        for seen in schedules
    }
    rows |= {one.id: [one.id, "", "", "", "unreadable", None, None] for one in unreadable}
    by_id = sorted(items, key=lambda name: name.encode("utf-8", "surrogatepass"))
    table = [rows[name] for name in by_id]
    session.out.items("schedules.list@1", [items[name] for name in by_id], _COLUMNS, table, now=lambda: now)
    for one in unreadable:
        session.out.note(f'"{one.id}" cannot be read here: {one.why}')
    if not items:
        session.out.note("There are no schedules. They are declared in code or configuration, and stored by workers.")
    for seen in schedules:
        if seen.problem:
            session.out.note(f'"{seen.schedule.id}" cannot fire here: {seen.problem}')
    _note_overdue(session, schedules, now)


@command.command("show", cls=StoreCommand, short_help="Show everything about one schedule.")
@_ID
@click.pass_obj
def show(session: Session, schedule_id: str) -> None:
    """Show everything about one schedule: when and what, how it treats missed times, and its next five times."""
    try:
        jobs, seen = _stored(session, schedule_id)
    except ScheduleUnreadable as error:
        item = {"id": schedule_id, "state": "unreadable", "problem": error.message}
        session.out.item("schedules.show@1", item, list(item.items()))
        session.out.note(error.mend)
        return
    times = list(islice(seen.times(jobs.driver.now()), _SHOWN))
    title = f"next {len(times)}, were it resumed now" if seen.schedule.is_paused else f"next {len(times)}"
    blocks = [("data", pretty_json(seen.schedule.data))]
    if times:
        blocks.append((title, moments_block(times, seen.zone, seen.schedule.timezone)))
    more: dict[str, object] = {"next": [moment_item(time, seen.zone) for time in times]}
    session.out.item("schedules.show@1", seen.item(), seen.fields(), blocks=blocks, now=jobs.driver.now, more=more)
    if seen.schedule.last_job_id is not None:
        session.out.note(f"Its last job: {session.to_type(f'protojobs jobs show {seen.schedule.last_job_id}')}")
    _note_overdue(session, [seen], jobs.driver.now())


@command.command("next", cls=StoreCommand)
@click.argument("schedule_id", metavar="[ID]", required=False)
@click.option("-n", "number", type=_NUMBER, default=10, show_default=True, metavar="N", help="So many times.")
@click.pass_obj
def show_next(session: Session, schedule_id: str | None, number: int) -> None:
    """List the times that come next, of all schedules or of one.

    Columns: id, how soon, and the time on the clocks of the schedule's zone, on those of this machine, and in UTC.
    """
    if schedule_id is None:
        jobs = session.queue()
        every = [SeenSchedule(one) for one in Scheduler(jobs).iterate()]
        active = [seen for seen in every if not seen.schedule.is_paused]
    else:
        jobs, seen = _stored(session, schedule_id)
        every = active = [seen]
    now = jobs.driver.now()
    coming = list(islice(heapq.merge(*(_times(seen, now) for seen in active), key=lambda one: one[0]), number))
    rows: list[list[Cell]] = [[seen.schedule.id, due, *moments(due, seen.zone)] for due, seen in coming]
    items = [{"id": seen.schedule.id, **moment_item(due, seen.zone)} for due, seen in coming]
    session.out.items("schedules.next@1", items, (*_TIMES, Column("UTC", "id")), rows, now=lambda: now)
    _note_missing(session, every, is_one=schedule_id is not None)
    _note_overdue(session, active, now)


@command.command("pause", cls=StoreCommand, short_help="Let no time of a schedule fire.")
@_ID
@click.pass_obj
def pause(session: Session, schedule_id: str) -> None:
    """Let no time of a schedule fire until it is resumed, whoever ticks. Jobs that it has fired go on."""
    scheduler = Scheduler(session.queue())
    has_changed = scheduler.pause(schedule_id)
    _show_change(session, scheduler, schedule_id, is_paused=True, has_changed=has_changed)


@command.command("resume", cls=StoreCommand)
@_ID
@click.pass_obj
def resume(session: Session, schedule_id: str) -> None:
    """Let a paused schedule fire again, from its next time on. Times that came meanwhile stay passed over."""
    scheduler = Scheduler(session.queue())
    has_changed = scheduler.resume(schedule_id)
    _show_change(session, scheduler, schedule_id, is_paused=False, has_changed=has_changed)


@command.command("run", cls=StoreCommand, short_help="Push a schedule's job now, and print its id.")
@_ID
@click.pass_obj
def run(session: Session, schedule_id: str) -> None:
    """Push a schedule's job once, now, and print the job's id. Its times stay as they are; a paused one runs too."""
    try:
        stored = Scheduler(session.queue()).run_now(schedule_id)
    except StoreUnavailable as error:
        if not error.job_ids:
            raise
        mend = f"protojobs jobs show {error.job_ids[0]}  (tells whether it was stored)"
        raise StoreUnavailable(error.message, mend=mend) from error
    if session.out.is_json:
        session.out.item("schedules.run@1", {"id": stored, "schedule": schedule_id}, ())
    else:
        click.echo(stored)


@command.command("remove", cls=StoreCommand)
@_ID
@YES
@click.pass_obj
def remove(session: Session, schedule_id: str, yes: bool) -> None:
    """Forget a schedule; jobs that it has fired stay. Asks first.

    One that code or configuration declares comes back when the next worker starts: take it out there first.
    """
    try:
        jobs, seen = _stored(session, schedule_id)
        examples = [f"{seen.schedule.job_name}: {seen.words} ({seen.schedule.timezone})"]
    except ScheduleUnreadable as error:
        jobs, examples = session.queue(), [error.message]
    examples.append("If code or configuration declares it, it comes back when the next worker starts.")
    confirm(session.out, f'Remove schedule "{schedule_id}" for good:', examples, is_agreed=yes)
    has_changed = Scheduler(jobs).remove(schedule_id)
    item: dict[str, Cell] = {"id": schedule_id, "has_changed": has_changed}
    session.out.item("schedules.remove@1", item, [("id", schedule_id), ("state", "removed")])
    if not has_changed:
        session.out.note("Somebody else has removed it meanwhile.")


@command.command("explain", cls=StoreCommand, short_help="Say what an expression means, and when that is.")
@click.argument("words", metavar="EXPRESSION", nargs=-1, required=True)
@click.option("--timezone", metavar="ZONE", help="In which it is read, such as Europe/Paris.  [default: the setting]")
@click.option("-n", "number", type=_NUMBER, default=_SHOWN, show_default=True, metavar="N", help="So many times.")
@click.pass_obj
def explain(session: Session, words: Sequence[str], timezone: str | None, number: int) -> None:
    """Say what a cron expression means, and its next times. Needs no store.

    \b
    protojobs schedules explain "0 9 * * mon" --timezone Europe/Paris
    protojobs schedules explain @hourly -n 3
    protojobs schedules explain every 90s
    """
    zone_name = timezone or session.settings().timezone
    zone = check_zone("timezone", zone_name)
    table, spec = _table(words, zone_name)
    times = list(islice(table.upcoming(SYSTEM_CLOCK.now()), number))
    fields: list[tuple[str, Cell]] = [("when", table.words()), ("expression", spec), ("zone", zone_name)]
    more: dict[str, object] = {"next": [moment_item(time, zone) for time in times]}
    item = {"expression": spec, "words": table.words(), "timezone": zone_name}
    block = (f"next {len(times)}", moments_block(times, zone, zone_name))
    session.out.item("schedules.explain@1", item, fields, blocks=[block], more=more)


def _stored(session: Session, schedule_id: str) -> tuple[JobQueue, SeenSchedule]:
    jobs = session.queue()
    scheduler = Scheduler(jobs)
    stored = scheduler.get(schedule_id)
    if stored is None:
        meant = did_you_mean(schedule_id, [one.id for one in islice(scheduler.iterate(), _SUGGESTED_MAX)])
        what = f'There is no schedule "{schedule_id}".'
        raise CommandFailed(Exit.NOT_FOUND, what, mend=meant or "protojobs schedules list")
    return jobs, SeenSchedule(stored)


def _unreadable_item(one: UnreadableSchedule) -> dict[str, object]:
    return {"id": one.id, "state": "unreadable", "problem": one.why}


def _times(seen: SeenSchedule, now: datetime) -> Iterator[tuple[datetime, SeenSchedule]]:
    return ((due, seen) for due in seen.times(now))


def _table(words: Sequence[str], zone: str) -> tuple[Timetable, str]:
    """The times of an expression as a person types it, and as it is stored."""
    if words[0].startswith("every"):
        spec = interval_spec("interval", duration(" ".join(words).removeprefix("every").strip()))
        return Timetable(spec, zone, anchor=SYSTEM_CLOCK.now()), spec
    try:
        spec = check_cron(" ".join(words))
    except OptionInvalid as error:
        if len(words) in (1, 5, 6):
            raise
        raise OptionInvalid(error.message, mend="Put the expression in quotes, else the shell reads its *.") from error
    return Timetable(spec, zone), spec


def _show_change(
    session: Session, scheduler: Scheduler, schedule_id: str, *, is_paused: bool, has_changed: bool
) -> None:
    stored = scheduler.get(schedule_id)
    seen = None if stored is None else SeenSchedule(stored)
    next_due_at = None if seen is None else seen.next_due_at
    item = {"id": schedule_id, "is_paused": is_paused, "has_changed": has_changed, "next_due_at": next_due_at}
    state = seen.state if seen is not None and not is_paused else "paused"
    fields: list[tuple[str, Cell]] = [("id", schedule_id), ("state", state)]
    if not is_paused:
        fields.append(("next due", next_due_at))
    session.out.item("schedules.pause@1", item, fields, now=scheduler.queue.driver.now)
    if not has_changed:
        session.out.note(f'"{schedule_id}" was {"paused already" if is_paused else "not paused"}.')


def _note_overdue(session: Session, schedules: Sequence[SeenSchedule], now: datetime) -> None:
    late = [seen for seen in schedules if seen.next_due_at is not None and seen.next_due_at < now - OVERDUE]
    if late:
        who = f'"{late[0].schedule.id}" is' if len(late) == 1 else f"{counted(len(late), 'schedule')} are"
        session.out.note(f"{who} overdue: is a worker running, or protojobs scheduler?")


def _note_missing(session: Session, every: Sequence[SeenSchedule], *, is_one: bool) -> None:
    """Why there are fewer times than somebody may expect."""
    for seen in every:
        if seen.problem:
            session.out.note(f'"{seen.schedule.id}" cannot fire here: {seen.problem}')
        elif is_one and seen.state != "active":
            why = "is paused: these would come, were it resumed now" if seen.state == "paused" else "has ended"
            session.out.note(f'"{seen.schedule.id}" {why}.')
    paused = sum(1 for seen in every if seen.state == "paused")
    if not every:
        session.out.note("There are no schedules.")
    elif paused and not is_one:
        session.out.note(f"{counted(paused, 'paused schedule')} not shown.")
