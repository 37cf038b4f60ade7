"""`protojobs explain ID`: say why a job is not running."""

from __future__ import annotations

import click
from msgspec.structs import replace

from protojobs.cli.exits import Exit
from protojobs.cli.options import StoreCommand
from protojobs.cli.session import Session
from protojobs.cli.showing.tables import Cell
from protojobs.doctor.explaining import Explanation, explain

__all__ = ["command"]

_CODE = 15  # letters: the longest code, and a gap


@click.command("explain", cls=StoreCommand, short_help="Say why a job is not running.")
@click.argument("job_id", metavar="ID")
@click.pass_obj
def command(session: Session, job_id: str) -> int:
    """Say why a job is not running: every test between it and a run, in the order in which a claim decides.

    Of a running job it says who has it and since when, of a finished one how it ended. The verdict comes first, and how
    to mend it; then each check with its code, `ok` or `no`.
    """
    explanation = explain(session.queue(), job_id)
    explanation = replace(explanation, mend=session.to_type(explanation.mend))
    fields: list[tuple[str, Cell]] = [
        ("job", explanation.job_id),
        ("state", explanation.state.value if explanation.state is not None else None),
        ("code", explanation.code),
        ("verdict", explanation.verdict),
        ("mend", explanation.mend or None),
    ]
    session.out.item("explain@1", explanation, fields, blocks=[("checks", _checks(explanation))])
    return Exit.OK if explanation.state is not None else Exit.NOT_FOUND


def _checks(explanation: Explanation) -> str:
    return "\n".join(f"{'ok' if one.passed else 'no'}  {one.code:{_CODE}} {one.words}" for one in explanation.checks)
