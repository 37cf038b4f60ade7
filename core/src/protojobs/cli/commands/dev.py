"""`protojobs dev`: run a worker and the dashboard on one terminal, and restart the worker when code changes."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points, version
from pathlib import Path

import click

from protojobs.cli.command_table import ENTRY_POINTS
from protojobs.cli.development.code_changes import CodeChanges
from protojobs.cli.development.prefixed_output import PrefixedOutput
from protojobs.cli.development.processes import DRAIN_S, Dashboard, DevWorker
from protojobs.cli.exits import Exit
from protojobs.cli.options import StoreCommand
from protojobs.cli.session import Session
from protojobs.cli.supervising.start_checks import check_shared
from protojobs.cli.supervising.stop_signals import stopped_by_signals
from protojobs.clock import SYSTEM_CLOCK
from protojobs.config import ENV_PREFIX
from protojobs.errors import NotSupported
from protojobs.stopping import StopToken

__all__ = ["command"]

PORT = 8787  # as the dashboard's own
LOOK_S = 0.1


@click.command("dev", cls=StoreCommand, short_help="Worker and dashboard, started anew when code changes.")
@click.argument("queues", metavar="[QUEUE]...", nargs=-1)
@click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    metavar="PORT",
    default=PORT,
    help=f"Of the dashboard.  [default: {PORT}]",
)
@click.option("--no-dashboard", is_flag=True, help="The worker alone.")
@click.option("--no-reload", is_flag=True, help="Do not watch the code.")
@click.option(
    "--watch",
    "folders",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="DIR",
    help="Watch this folder. Repeatable.  [default: the current one]",
)
@click.pass_obj
def command(
    session: Session, queues: Sequence[str], port: int, no_dashboard: bool, no_reload: bool, folders: Sequence[Path]
) -> int:
    """Worker and dashboard in one terminal, for development. The worker fires schedules too.

    It works the QUEUEs, by default all. When a .py or .toml file changes, its jobs may finish within 2 s, and another
    worker starts; jobs that were cut short run again, and it counts as no attempt. One Ctrl-C ends everything.

    \b
    protojobs dev --app shop.jobs
    protojobs dev emails --app shop.jobs --watch src --port 9000
    """
    if os.name == "nt":
        raise NotSupported("On Windows there is no protojobs dev.", mend="Start protojobs worker instead.")
    # What is wrong with the store is said once, here. The application is the worker's: it may be mended at any time.
    jobs = session.queue()
    has_dashboard = not no_dashboard and _is_dashboard_installed()
    check_shared(session, jobs, is_several=has_dashboard)
    jobs.driver.get([""])
    store_name = session.store_name(jobs)
    jobs.close()
    lines, stop = PrefixedOutput(), StopToken()
    changes = None if no_reload else CodeChanges(folders or [Path.cwd()])
    with stopped_by_signals(stop, _note, ends_with_terminal=True), _environment_of_children(session):
        _begin(lines, store_name, port if has_dashboard else None, is_missing=not no_dashboard and not has_dashboard)
        worker = DevWorker(queues, lines)
        dashboard = Dashboard(port, lines) if has_dashboard else None
        try:
            _run(worker, dashboard, changes, lines, stop)
        finally:
            _end(worker, dashboard, changes, stop)
    lines.say("dev", "ended")
    return Exit.OK if stop.level else worker.code


def _run(
    worker: DevWorker, dashboard: Dashboard | None, changes: CodeChanges | None, lines: PrefixedOutput, stop: StopToken
) -> None:
    """Until somebody wants an end, or the worker cannot start and no change can help."""
    while not stop.level and not (worker.needs_a_change and changes is None):
        worker.look()
        if dashboard is not None:
            dashboard.look()
        if changes is not None and (changed := changes.take()):
            lines.say("dev", f"{changed} changed: the worker starts anew")
            worker.replace(stop)
        if changes is not None and changes.lost:
            lines.say("dev", f"changes are not seen any more: {changes.lost}. Mend that, or give a smaller --watch")
            changes = None
        SYSTEM_CLOCK.sleep(LOOK_S)


def _end(worker: DevWorker, dashboard: Dashboard | None, changes: CodeChanges | None, stop: StopToken) -> None:
    if dashboard is not None:
        dashboard.end()  # while the worker drains
    worker.end(stop)
    if dashboard is not None:
        dashboard.wait()
    if changes is not None:
        changes.close()


@contextmanager
def _environment_of_children(session: Session) -> Generator[None]:
    """Pass the options on to the children by the environment: a URL may hold a password, which `ps` would show."""
    variables = {"PYTHONUNBUFFERED": "1", f"{ENV_PREFIX}URL": session.url, f"{ENV_PREFIX}APP": ",".join(session.apps)}
    before = dict(os.environ)
    os.environ.update({name: value for name, value in variables.items() if value})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _is_dashboard_installed() -> bool:
    return any(entry.name == "dashboard" for entry in entry_points(group=ENTRY_POINTS))


def _begin(lines: PrefixedOutput, store_name: str, port: int | None, *, is_missing: bool) -> None:
    lines.say("dev", f"protojobs {version('protojobs')}, {store_name}")
    if port is not None:
        lines.say("dev", f"dashboard at http://127.0.0.1:{port}/")
    if is_missing:
        lines.say("dev", 'there is no dashboard here: pip install "protojobs[dashboard]"')
    lines.say("dev", "Ctrl-C ends everything")


def _note(name: str, level: int) -> bytes:
    if level > 1:
        return f"{name}: cutting running jobs short.\n".encode()
    return f"\n{name}: ending; running jobs get {DRAIN_S:g} s.\n".encode()
