"""`protojobs worker`: run one worker, or a supervisor of several, until a limit or a signal ends it."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import version
from itertools import islice
from typing import TypedDict, Unpack

import click
import msgspec

from protojobs.cli.exits import Exit
from protojobs.cli.health_probe.health import Health, supervisor_health, worker_health
from protojobs.cli.health_probe.probe import Probe
from protojobs.cli.health_probe.systemd import Systemd
from protojobs.cli.option_types import duration, size
from protojobs.cli.other_tools import WorkerCommand
from protojobs.cli.session import Session
from protojobs.cli.showing.logs import FORMATS, LEVELS, json_line, level_of, logging_to_stderr, say_json
from protojobs.cli.supervising.hard_exit import HardExit
from protojobs.cli.supervising.scheduler_thread import declared, ticking
from protojobs.cli.supervising.start_checks import check_shared, of_queues
from protojobs.cli.supervising.stop_signals import stopped_by_signals
from protojobs.cli.supervising.supervisor import Supervisor
from protojobs.cli.supervising.supervisor_link import SupervisorLink, join_supervisor
from protojobs.cli.supervising.worker_process import worker_command
from protojobs.clock import SYSTEM_CLOCK
from protojobs.errors import NotSupported
from protojobs.port.records import QueueInfo
from protojobs.queue.queue import JobQueue
from protojobs.scheduler.scheduler import Scheduler
from protojobs.stopping import StopToken
from protojobs.worker.launch import work
from protojobs.worker.outcome import WorkReport
from protojobs.worker.queue_order import EVERY_QUEUE, QueueOrder, queue_order
from protojobs.worker.reports.health import WorkerHealth

__all__ = ["command"]

_WHY = {
    "empty": "nothing was due",
    "max_jobs": "--max-jobs is reached",
    "max_time": "--max-time is over",
    "stopped": "it was told to stop",
    "memory": "the memory limit is passed",
    "stuck": "a run could not be ended, so the process ends itself; the job runs again",
}
_JOBS_SHOWN = 8
_log = logging.getLogger("protojobs.cli")


class _Options(TypedDict):
    processes: int | None
    max_jobs: int
    sleep: float | None
    concurrency: int | None
    executor: str | None
    stop_when_empty: bool
    all_queues: bool
    no_scheduler: bool
    max_memory: int | None
    max_time: float
    probe_port: int | None
    probe_host: str
    verbose: int
    log_level: str | None
    log_format: str


@click.command("worker", cls=WorkerCommand, short_help="Run jobs until told to stop.")
@click.argument("queues", metavar="[QUEUE[=WEIGHT]]...", nargs=-1)
@click.option(
    "--processes",
    type=click.IntRange(1, 1_000),
    metavar="N",
    help="Keep N such workers running, and restart what dies. Limits are for each.",
)
@click.option("--max-jobs", type=click.IntRange(0), metavar="N", default=0, help="End after N runs; 0 = no limit.")
@click.option("--sleep", type=duration, metavar="TIME", help="Between two looks into an idle store.  [default: 1s]")
@click.option("--concurrency", type=click.IntRange(1, 10_000), metavar="N", help="Jobs at once.  [default: 8]")
@click.option(
    "--executor",
    type=click.Choice(["thread", "process"]),
    metavar="WHERE",
    help="Of plain functions.  [default: thread]",
)
@click.option(
    "--stop-when-empty",
    is_flag=True,
    help="End when nothing is due. Stays for half a lease where a worker died, to take back its jobs.",
)
@click.option("--all-queues", is_flag=True, help="All queues that there are, in fair turn; new ones too.")
@click.option("--no-scheduler", is_flag=True, help="Fire no schedules; let others do it.")
@click.option("--max-memory", type=size, metavar="SIZE", help="End after its jobs beyond 512M, 2G ...; 0 = no limit.")
@click.option(
    "--max-time", type=duration, metavar="TIME", default="0", help="End after its jobs after 1h, 7d ...; 0 = no limit."
)
@click.option(
    "--probe-port",
    type=click.IntRange(1, 65_535),
    metavar="PORT",
    help="Answer GET /livez and /readyz there: for Kubernetes, and protojobs health.",
)
@click.option("--probe-host", metavar="HOST", default="127.0.0.1", help="Where to.  [default: 127.0.0.1]")
@click.option("-v", "--verbose", count=True, help="A line for each job; -vv for everything.")
@click.option("--log-level", type=click.Choice(LEVELS), metavar="LEVEL", help=f"Instead of -v: {', '.join(LEVELS)}.")
@click.option(
    "--log-format", type=click.Choice(FORMATS), metavar="FORMAT", default="text", help="Of stderr: text or json."
)
@click.pass_obj
def command(session: Session, queues: Sequence[str], **options: Unpack[_Options]) -> int:
    """Run jobs until told to stop: of the QUEUEs, in that order; by default of all queues that your jobs name.

    With weights, urgent=5 bulk=1, five jobs of urgent are taken for each one of bulk, while both wait. A * in a name
    stands for any text; quote it. Queues without weights that no order was given for are asked in fair turn.

    Name the modules that define your jobs with --app. Ctrl-C or SIGTERM lets running jobs finish for shutdown_grace
    (25 s); a second one cuts them short. What was not finished runs again; none of it counts as an attempt.

    \b
    protojobs worker --app shop.jobs
    protojobs worker urgent default --app shop.jobs --concurrency 20 --max-memory 512M
    protojobs worker urgent=5 bulk=1 'mail.*=2' --app shop.jobs
    protojobs worker --app shop.jobs --processes 4
    protojobs worker --app shop.jobs --stop-when-empty
    """
    if queues and options["all_queues"]:
        raise click.UsageError("Give names of queues or --all-queues, not both.", click.get_current_context())
    level = level_of(options["log_level"], options["verbose"])
    quiet = options["log_level"] is None and options["verbose"] < 2
    stop = StopToken()
    link = join_supervisor(stop)  # first of all, so that not even a slow import outlives the supervisor
    is_one_of_many = link is not None or options["processes"] is not None
    with logging_to_stderr(level, options["log_format"], quiet_others=quiet, names_process=is_one_of_many):
        if link is None and options["processes"] is not None:
            return _supervise(session, queues, options, options["processes"])
        report = _work(session, queues, options, stop, link)
    if report.reason == "stuck":
        # A thread of ours still runs a job that the store counts as ended. Only the end of the process ends it.
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:  # even when nobody reads them any more
            os._exit(Exit.BAD)
    return Exit.OK


def _work(
    session: Session, queues: Sequence[str], options: _Options, stop: StopToken, link: SupervisorLink | None
) -> WorkReport:
    jobs, order, scheduler = _prepare(session, queues, options, is_quiet=link is not None)
    jobs.hooks.check()  # in the workers only: a plugin may open a port of its own, and a supervisor needs none
    vitals = WorkerHealth() if link is None else link.health
    with ExitStack() as stack:
        stack.enter_context(stopped_by_signals(stop, _notes(jobs, options), is_supervised=link is not None))
        if link is None:
            health = partial(worker_health, vitals, stop, SYSTEM_CLOCK)
            stack.enter_context(_health_published(health, stop, options))
        if scheduler is not None:
            if options["stop_when_empty"] or options["max_jobs"]:
                scheduler.tick()  # before the first look for jobs, so that what is due counts as due
            stack.enter_context(ticking(scheduler, stop))
        report = work(
            jobs.runtime,
            order.told,
            max_jobs=options["max_jobs"] or None,
            ends_when_empty=options["stop_when_empty"],
            max_time_s=options["max_time"] or None,
            stop=stop,
            told=link.send_sign_of_life if link is not None else None,
            vitals=vitals,
            must_end_by=HardExit().at,
        )
    if link is not None:
        link.report(report)
    else:
        _end(session, report, is_json_log=options["log_format"] == "json")
    return report


def _supervise(session: Session, queues: Sequence[str], options: _Options, processes: int) -> int:
    if os.name == "nt":
        raise NotSupported("On Windows --processes cannot be used.", mend="Start several workers instead.")
    # What is wrong with the configuration, the application or the store is said once, here, before any worker starts.
    jobs, _, _ = _prepare(session, queues, options)
    jobs.close()
    settings, stop = jobs.settings, StopToken()
    supervisor = Supervisor(
        worker_command(session.arguments),
        processes,
        grace_s=settings.shutdown_grace,
        exit_bound_s=settings.exit_bound,
        clock=SYSTEM_CLOCK,
        heartbeat=lambda worker: jobs.driver.heartbeat(worker, {}),  # opens a connection when it is first needed
    )
    health = partial(supervisor_health, supervisor, stop, SYSTEM_CLOCK)
    with (
        stopped_by_signals(stop, _notes(jobs, options)),
        _health_published(health, stop, options),
    ):
        report, code = supervisor.run(stop)
    jobs.close()
    _end(session, report, is_json_log=options["log_format"] == "json")
    return code


def _prepare(
    session: Session, queues: Sequence[str], options: _Options, *, is_quiet: bool = False
) -> tuple[JobQueue, QueueOrder, Scheduler | None]:
    """The store, the queues to work, and what to tick, announced on stderr unless `is_quiet`."""
    changes: dict[str, object] = {
        "concurrency": options["concurrency"],
        "executor": options["executor"],
        "max_memory": options["max_memory"],
        "poll_interval": options["sleep"],
    }
    jobs = session.queue(needs_jobs=True, changes=changes)
    check_shared(session, jobs, is_several=options["processes"] is not None)
    # Asked before anything is promised: is the store there, and migrated?
    stored = jobs.queues()
    order = queue_order([EVERY_QUEUE] if options["all_queues"] else queues or None, jobs.settings, jobs.registry)
    if order.is_open:
        order.found(stored)
    scheduler = None if options["no_scheduler"] else Scheduler(jobs)
    own = 0 if scheduler is None else len(declared(scheduler))
    if not is_quiet:
        _begin(session, jobs, order, options, own)
        for warning in (*_warnings(session, jobs, order, stored), *of_queues(jobs, order, stored)):
            _log.warning("%s", warning)
    return jobs, order, scheduler


def _begin(session: Session, jobs: JobQueue, order: QueueOrder, options: _Options, own: int) -> None:
    """The banner: who works what, and how to stop it."""
    registered = list(jobs.registry)
    store_name, settings, processes = session.store_name(jobs), jobs.settings, options["processes"]
    if options["log_format"] == "json":
        facts: dict[str, object] = {
            "version": version("protojobs"),
            "store": store_name,
            "queues": ",".join(order.told if order.is_open else order.names),
            "jobs_known": len(registered),
            "schedules_declared": own,
            "fires_schedules": not options["no_scheduler"],
        }
        if processes is not None:
            facts["processes"] = processes
        if options["probe_port"] is not None:
            facts["probe"] = _probe_at(options)
        say_json("worker starting", **facts, concurrency=settings.concurrency)
    else:
        more = f" and {len(registered) - _JOBS_SHOWN} more" if len(registered) > _JOBS_SHOWN else ""
        listed = f" ({', '.join(islice(registered, _JOBS_SHOWN))}{more})" if registered else ""
        how = ", in child processes" if settings.executor == "process" else ""
        who, each = ("worker", "") if processes is None else ("supervisor", f" in each of {processes} workers")
        for line in (
            f"protojobs {version('protojobs')} {who}, pid {os.getpid()}",
            f"  store        {store_name}",
            f"  queues       {order.words}",
            f"  concurrency  {settings.concurrency}{how}{each}",
            f"  jobs known   {len(registered)}{listed}",
            f"  schedules    {'not ticked here' if options['no_scheduler'] else f'{own:,} declared here'}",
            *([f"  probe        {_probe_at(options)}"] if options["probe_port"] is not None else []),
            f"  to stop      Ctrl-C or SIGTERM: running jobs get {settings.shutdown_grace:g} s; again: cut short",
        ):
            session.out.note(line)


@contextmanager
def _health_published(health: Callable[[], Health], stop: StopToken, options: _Options) -> Generator[None]:
    """For the time of the block the probe and systemd tell the health. Raises ConfigurationError for a taken port."""
    port = options["probe_port"]
    probe = None if port is None else Probe(options["probe_host"], port, health)
    systemd = Systemd.from_environment(health)
    unsubscribe = stop.subscribe(lambda _level: systemd.look()) if systemd is not None else None
    try:
        yield
    finally:
        if unsubscribe is not None:
            unsubscribe()
        for publisher in (probe, systemd):
            if publisher is not None:
                publisher.close()


def _probe_at(options: _Options) -> str:
    host = options["probe_host"]
    return f"http://{f'[{host}]' if ':' in host else host}:{options['probe_port']}/livez, /readyz"


def _warnings(session: Session, jobs: JobQueue, order: QueueOrder, stored: Sequence[QueueInfo]) -> Iterator[str]:
    """What looks like a mistake."""
    for info in stored:
        if info.is_paused and info.name in order.names:
            yield f'queue "{info.name}" is paused; {session.to_type(f"protojobs queues resume {info.name}")}'
    for name in order.told:
        if "," in name and all(info.name != name for info in stored):
            apart = shlex.join(part for part in map(str.strip, name.split(",")) if part)
            yield f'"{name}" is taken for one queue; did you mean: {session.program} worker {apart}'
        if name.isdigit():
            yield f'"{name}" is taken for a queue; did you mean --max-jobs {name}?'
    if not list(jobs.registry):
        yield "no jobs are known here, so none can be run: name the module that defines them with --app"


def _notes(jobs: JobQueue, options: _Options) -> Callable[[str, int], bytes]:
    """What to write to stderr about a signal."""
    is_json, grace = options["log_format"] == "json", f"{jobs.settings.shutdown_grace:g} s"
    return lambda name, level: _stopping(name, level, grace, is_json=is_json)


def _stopping(name: str, level: int, grace: str, *, is_json: bool) -> bytes:
    text = f"{name}: claiming no more; running jobs get {grace}. Again to cut them short."
    if level > 1:
        text = f"{name}: cutting running jobs short; they run again, and it counts as no attempt."
    return (json_line(text) if is_json else f"\n{text}").encode() + b"\n"


def _end(session: Session, report: WorkReport, *, is_json_log: bool) -> None:
    why = _WHY.get(report.reason, report.reason)
    if is_json_log:
        say_json(f"worker ended: {why}", **msgspec.structs.asdict(report))
    else:
        others = report.runs - report.done - report.failed - report.late
        rest = f", {others:,} to run again or cancelled" if others > 0 else ""
        rest += f", {report.late:,} too late to be recorded" if report.late else ""
        session.out.note(f"worker ended, since {why}: {report.done:,} done, {report.failed:,} failed{rest}")
    if session.out.is_json:
        session.out.item("worker@1", report, ())
