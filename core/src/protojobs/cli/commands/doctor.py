"""`protojobs doctor`: report what is wrong with the store, the workers and the settings, and how to mend it."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence

import click
from msgspec.structs import replace

from protojobs.cli.exits import Exit
from protojobs.cli.options import StoreCommand
from protojobs.cli.session import Session
from protojobs.cli.showing.output import plain_values
from protojobs.cli.showing.tables import Cell, Column
from protojobs.cli.showing.text import counted, escaped
from protojobs.doctor.examining import examine
from protojobs.errors import ConfigurationError
from protojobs.port.diagnosis import Finding, Severity
from protojobs.queue.queue import JobQueue

__all__ = ["command"]

_COLUMNS = (Column("severity"), Column("code"), Column("what"), Column("mend"))
_COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "cyan", Severity.OK: "green"}
_LABEL = 9  # letters: the longest severity, and a gap
_WIDTH_MAX = 110


@click.command("doctor", cls=StoreCommand, short_help="Say what is wrong with the store, the workers and the settings.")
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warning"]),
    default="error",
    show_default=True,
    help="From which severity on the exit code is 1.",
)
@click.option("-v", "--verbose", is_flag=True, help="Show what is in order, too.")
@click.pass_obj
def command(session: Session, fail_on: str, verbose: bool) -> int:
    """Say what is wrong with the store, the workers and these settings, the worst first, each with the way to mend it.

    It looks and changes nothing. With --app it also knows which jobs your code has. Columns: severity (error, warning,
    note, ok), code, what was found, how to mend it. Exit code 0, or 1 where something is as bad as --fail-on, or 5 when
    the store does not answer.
    """
    queue, findings = _opened(session)
    findings += [replace(one, mend=_to_type(session, one)) for one in examine(queue)]
    findings.sort(key=lambda finding: -finding.severity)
    shown = findings if verbose or session.is_json else [one for one in findings if one.severity > Severity.OK]
    if session.is_json or not session.out.is_terminal:
        items = [_item(finding) for finding in findings]
        session.out.items("doctor@1", items, _COLUMNS, map(_row, shown), more={"store": session.store_name(queue)})
    else:
        for line in _lines(shown, shutil.get_terminal_size().columns):
            click.echo(line)
    session.out.note(f"{session.store_name(queue)}: {_summary(findings)}")
    return Exit.BAD if findings[0].severity >= Severity[fail_on.upper()] else Exit.OK


def _opened(session: Session) -> tuple[JobQueue, list[Finding]]:
    """The queue, with the application if one is named. One that cannot be imported is a finding, not the end."""
    try:
        return session.queue(needs_jobs=True), []
    except ConfigurationError as error:
        queue = session.queue()  # raises where something is wrong with the store itself
        what = f"The application cannot be imported. {error.message}"
        return queue, [Finding(code="app_broken", severity=Severity.ERROR, what=what, mend=error.mend)]


def _to_type(session: Session, finding: Finding) -> str:
    is_of_schema = finding.code == "schema" and "migrate" in finding.mend
    return session.to_type("protojobs migrate" if is_of_schema else finding.mend)


def _item(finding: Finding) -> object:
    values = plain_values(finding)
    assert isinstance(values, dict)
    return {**values, "severity": _name(finding.severity)}  # pyright: ignore[reportUnknownVariableType]


def _row(finding: Finding) -> list[Cell]:
    return [_name(finding.severity), finding.code, finding.what, finding.mend]


def _lines(findings: Sequence[Finding], columns: int) -> Iterator[str]:
    """Each finding as a paragraph: its severity and what it is, why it matters, how to mend it."""
    width = max(min(columns, _WIDTH_MAX) - _LABEL, 20)
    for finding in findings:
        label = click.style(f"{_name(finding.severity):{_LABEL}}", fg=_COLOURS[finding.severity], bold=True)
        what, *rest = textwrap.wrap(f"{escaped(finding.what)} [{finding.code}]", width) or [""]
        yield label + what
        for line in rest + textwrap.wrap(escaped(finding.why if finding.severity else ""), width):
            yield " " * _LABEL + line
        if finding.mend:
            mend = textwrap.wrap(
                f"Mend: {escaped(finding.mend)}", width, break_long_words=False, break_on_hyphens=False
            )
            yield from (" " * _LABEL + click.style(line, bold=True) for line in mend)


def _summary(findings: Sequence[Finding]) -> str:
    numbers = {severity: sum(one.severity is severity for one in findings) for severity in Severity}
    words = [
        counted(numbers[severity], _name(severity))
        for severity in (Severity.ERROR, Severity.WARNING, Severity.NOTE)
        if numbers[severity]
    ]
    return f"{', '.join([*words, f'{numbers[Severity.OK]} in order'])}."


def _name(severity: Severity) -> str:
    return severity.name.lower()
