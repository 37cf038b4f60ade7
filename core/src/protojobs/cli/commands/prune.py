"""`protojobs prune`: delete old finished jobs."""

from __future__ import annotations

import click

from protojobs.cli.option_types import duration
from protojobs.cli.options import StoreCommand
from protojobs.cli.session import Session

__all__ = ["command"]


@click.command("prune", cls=StoreCommand, short_help="Delete old finished jobs.")
@click.option("--completed-older-than", type=duration, metavar="AGE", help="Completed and cancelled jobs of this age.")
@click.option("--failed-older-than", type=duration, metavar="AGE", help="Failed jobs of this age.")
@click.pass_obj
def command(session: Session, completed_older_than: float | None, failed_older_than: float | None) -> None:
    """Delete finished jobs that are older than their retention, and say how many. Never a live one.

    Without an AGE the configured retentions apply (completed_job_retention 24 hours, failed_job_retention 168 hours),
    as running workers apply them once a minute. With an AGE, such as 30s, 10m, 2h or 7d, only what it names goes.
    """
    done = session.queue().prune(completed_older_than=completed_older_than, failed_older_than=failed_older_than)
    item = {"completed": done.completed, "cancelled": done.cancelled, "failed": done.failed, "total": done.total}
    session.out.item("prune@1", item, list(item.items()))
    if session.out.is_terminal and not done.total:
        session.out.note("Nothing is old enough.")
