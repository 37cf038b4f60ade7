"""`protojobs conformance URL`: run the conformance kit against a driver, and report the level that it reaches.

The kit runs in a process of its own: a broken driver takes only that process with it, and production needs nothing of
`protojobs.testing`. The lines that it writes are described in `protojobs/testing/conformance/__main__.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import click
import msgspec

from protojobs.cli.acting.confirmation import YES, confirm
from protojobs.cli.exits import CommandFailed, Exit
from protojobs.cli.options import COMMON, StoreCommand
from protojobs.cli.session import Session
from protojobs.cli.showing.conformance_report import Ended, Report, shown_progress, write_report
from protojobs.cli.showing.text import counted
from protojobs.errors import ConfigurationError, SchemaOutdated
from protojobs.port.driver import Store
from protojobs.port.installed_drivers import create_driver
from protojobs.port.urls import masked

__all__ = ["command"]

_KIT = "protojobs.testing.conformance"
_URL_VARIABLE = "PROTOJOBS_CONFORMANCE_URL"
_LEVELS = ("queue", "transactions", "faults")


class _Line(msgspec.Struct):
    """One line from the kit: exactly one of the first three is there."""

    begun: int | None = None
    test: Ended | None = None
    report: msgspec.Raw = msgspec.Raw()
    errors: tuple[str, ...] = ()


class _Command(StoreCommand):
    """With a `--json` of its own, which takes a file."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [param for param in super().get_params(ctx) if not (param in COMMON and "--json" in param.opts)]


@click.command("conformance", cls=_Command, short_help="Run the conformance kit against a driver.")
@click.argument("store", metavar="URL", required=False)
@click.option("--level", type=click.Choice(_LEVELS), default=_LEVELS[-1], help="The highest level to try.  [faults]")
@click.option("--json", "file", metavar="FILE", help="Write the report as JSON too; - is stdout.")
@YES
@click.pass_obj
def command(session: Session, store: str | None, level: str, file: str | None, yes: bool) -> int:
    """Run the conformance kit against the store at URL, and say which level its driver reaches: queue, transactions or
    faults.

    The tests DELETE everything in that store, so name one of its own. It is left set up and empty. What the driver does
    not claim is not tried; what it claims and does not keep fails. Exit code 0: all that is claimed passed.
    """
    url = store or session.url
    if url is None:  # on purpose neither the environment nor the configuration: that is the store with the real jobs
        raise click.UsageError("Name the store: protojobs conformance sqlite:///scratch.db")
    file = file or ("-" if session.is_json else None)
    _check_installed()
    _check_empty(session, url, is_agreed=yes)
    document, report, errors = _run(url, level)
    if errors and not report.tests:
        raise CommandFailed(Exit.BAD, errors[0])
    for error in errors:
        session.out.note(error)
    if file == "-":
        click.echo(msgspec.json.format(document, indent=2).decode())
    else:
        write_report(report, session.out)
        if file:
            Path(file).write_bytes(msgspec.json.format(document, indent=2) + b"\n")
    return Exit.OK if report.ok else Exit.BAD


def _check_installed() -> None:
    missing = [name for name in ("pytest", "hypothesis") if find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"The conformance kit needs {' and '.join(missing)}.", mend='pip install "protojobs[conformance]"'
        )


def _check_empty(session: Session, url: str, *, is_agreed: bool) -> None:
    driver = create_driver(url)
    try:
        jobs, workers = _contents(driver)
    finally:
        driver.close()
    if jobs or workers:
        what = (
            f"{masked(url)} is not empty: {counted(jobs, 'job')}, {counted(workers, 'worker')}. The tests delete all."
        )
        confirm(session.out, what, is_agreed=is_agreed)


def _contents(driver: Store) -> tuple[int, int]:
    try:
        return driver.stats().total, len(driver.workers())
    except SchemaOutdated:
        return 0, 0  # not set up


def _run(url: str, level: str) -> tuple[bytes, Report, tuple[str, ...]]:
    """The report as the kit wrote it and as it is shown, and what went wrong beside the tests."""
    kit = subprocess.Popen(
        [sys.executable, "-m", _KIT, level],
        env={**os.environ, _URL_VARIABLE: url},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert kit.stdout is not None
    try:
        last = _follow(kit.stdout)
        kit.wait()
    finally:
        if kit.poll() is None:  # Ctrl-C, or a line that nobody understands
            kit.kill()
            kit.wait()
        kit.stdout.close()
    document = bytes(last.report)
    if not document:
        raise CommandFailed(Exit.BAD, f"The kit's process ended early, with exit code {kit.returncode}.")
    return document, msgspec.json.decode(document, type=Report), last.errors


def _follow(lines: IO[bytes]) -> _Line:
    """Show the tests as they end; the last line."""
    line = _Line()
    with shown_progress(on_terminal=sys.stderr.isatty()) as progress:
        for text in lines:
            line = msgspec.json.decode(text, type=_Line)
            if line.begun is not None:
                progress.begin(line.begun)
            elif line.test is not None:
                progress.ended(line.test)
    return line
