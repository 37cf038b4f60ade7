"""`protojobs push`: store a job from the command line."""

from __future__ import annotations

import click

from protojobs.cli.option_types import duration, json_value
from protojobs.cli.options import StoreCommand
from protojobs.cli.session import Session
from protojobs.jobs.job_class import as_bound

__all__ = ["command"]


@click.command("push", cls=StoreCommand, short_help="Store a job, and print its id.")
@click.argument("name")
@click.argument("data", metavar="[JSON]", type=json_value, default="{}")
@click.option("--queue", metavar="QUEUE", help="Instead of the job's own queue.")
@click.option("--delay", type=duration, metavar="TIME", help="Not before so long from now: 30s, 10m, 2h, 7d.")
@click.option("--at", metavar="WHEN", help="Not before 2030-01-31 12:00, in the configured timezone.")
@click.option("--priority", type=click.IntRange(-100, 100), metavar="N", help="Higher runs first.")
@click.option(
    "--id", "job_id", metavar="ID", help="Push again what may be stored already, under the id that you were told."
)
@click.pass_obj
def command(  # noqa: PLR0913  (the options of a push)
    session: Session,
    name: str,
    data: object,
    queue: str | None,
    delay: float | None,
    at: str | None,
    priority: int | None,
    job_id: str | None,
) -> None:
    """Store the job called NAME with its data, and print its id.

    JSON is the data, {} by default; `-` reads it from stdin. The job must be known: name its module with --app. Its
    data is checked against the type that the job declares.

    \b
    protojobs push mail.welcome '{"email": "jo@example.com"}' --app shop.jobs
    """
    if delay is not None and at is not None:
        raise click.UsageError("Give --delay or --at, not both.", click.get_current_context())
    jobs = session.queue(needs_jobs=True)
    bound = as_bound(name, data, jobs.registry)
    if queue is not None:
        bound = bound.on_queue(queue)
    if priority is not None:
        bound = bound.with_priority(priority)
    stored = jobs.later(delay or 0.0 if at is None else at, bound, id=job_id)
    if session.out.is_json:
        session.out.item("push@1", {"id": stored}, ())
    else:
        click.echo(stored)
