"""`protojobs scheduler`: fire schedules and run no jobs, until a signal, or once for cron."""

from __future__ import annotations

import os
from importlib.metadata import version

import click

from protojobs.cli.options import StoreCommand
from protojobs.cli.session import Session
from protojobs.cli.showing.logs import FORMATS, LEVELS, json_line, level_of, logging_to_stderr, say_json
from protojobs.cli.showing.text import counted, length
from protojobs.cli.supervising.scheduler_thread import declared, ticking
from protojobs.cli.supervising.stop_signals import stopped_by_signals
from protojobs.queue.queue import JobQueue
from protojobs.scheduler.scheduler import Scheduler, TickReport
from protojobs.stopping import StopToken

__all__ = ["command"]


@click.command("scheduler", cls=StoreCommand, short_help="Fire schedules until told to stop.")
@click.option("--once", is_flag=True, help="Fire what is due, and end: for cron.")
@click.option("-v", "--verbose", count=True, help="A line for each time that fires; -vv for everything.")
@click.option("--log-level", type=click.Choice(LEVELS), metavar="LEVEL", help=f"Instead of -v: {', '.join(LEVELS)}.")
@click.option(
    "--log-format", type=click.Choice(FORMATS), metavar="FORMAT", default="text", help="Of stderr: text or json."
)
@click.pass_obj
def command(session: Session, once: bool, verbose: int, log_level: str | None, log_format: str) -> None:
    """Fire schedules until told to stop: push the job of each time that comes. Jobs themselves are run by workers.

    Every worker does this too, unless it is told not to. Any number may: each time fires once. Schedules that your code
    or configuration declares are stored at the start; name the modules that declare them with --app.

    \b
    protojobs scheduler --app shop.jobs
    * * * * *  cd /srv/shop && protojobs scheduler --once --app shop.jobs
    """
    quiet = log_level is None and verbose < 2
    with logging_to_stderr(level_of(log_level, verbose), log_format, quiet_others=quiet):
        jobs = session.queue(needs_jobs=True)
        jobs.hooks.check()
        scheduler = Scheduler(jobs)
        own = len(declared(scheduler))
        if once:
            _show(session, scheduler.tick(), is_verbose=verbose > 0, is_json_log=log_format == "json")
        else:
            _run(session, scheduler, own, is_json_log=log_format == "json")


def _show(session: Session, report: TickReport, *, is_verbose: bool, is_json_log: bool) -> None:
    """Without --verbose it prints nothing: cron sends by mail what a command prints."""
    if session.out.is_json:
        session.out.item("scheduler@1", report, ())
    if not is_verbose:
        return
    ahead = "" if report.next_due_in is None else f"; the next is due in {length(max(report.next_due_in, 1.0))}"
    done = [f"{counted(report.fired, 'time')} fired"] if report.fired else []
    done += [f"{report.missed:,} missed"] if report.missed else []
    done += [f"{report.overtaken:,} left to another scheduler"] if report.overtaken else []
    text = f"{', '.join(done) or 'nothing was due'}{ahead}"
    if is_json_log:
        say_json(f"scheduler ended: {text}")
    else:
        session.out.note(text)


def _run(session: Session, scheduler: Scheduler, own: int, *, is_json_log: bool) -> None:
    stored = sum(1 for _ in scheduler.iterate())  # asked before anything is promised: is the store there, and migrated?
    stop = StopToken()
    with stopped_by_signals(stop, lambda name, level: _stopping(name, level, is_json_log)):
        _begin(session, scheduler.queue, own, stored, is_json_log=is_json_log)
        with ticking(scheduler, stop) as thread:
            thread.join()
    if is_json_log:
        say_json("scheduler ended: it was told to stop")
    else:
        session.out.note("scheduler ended, since it was told to stop")


def _begin(session: Session, jobs: JobQueue, own: int, stored: int, *, is_json_log: bool) -> None:
    store_name = session.store_name(jobs)
    if is_json_log:
        facts: dict[str, object] = {"version": version("protojobs"), "store": store_name}
        say_json("scheduler starting", **facts, declared=own, stored=stored)
        return
    for line in (
        f"protojobs {version('protojobs')} scheduler, pid {os.getpid()}",
        f"  store        {store_name}",
        f"  schedules    {stored:,} stored, {own:,} of them declared here",
        "  to stop      Ctrl-C or SIGTERM",
    ):
        session.out.note(line)


def _stopping(name: str, level: int, is_json_log: bool) -> bytes:
    if level > 1:
        return b""  # there is nothing to hurry
    text = f"{name}: firing no more."
    return (json_line(text) if is_json_log else f"\n{text}").encode() + b"\n"
