"""Commands and options of other job libraries, with the names that they have here: for people who type those."""

from __future__ import annotations

import click

from protojobs.cli.options import StoreCommand, StoreGroup

__all__ = ["COMMANDS", "OPTIONS", "ForeignNamesGroup", "WorkerCommand"]

_QUEUES = "Queues are named without an option: protojobs worker emails default."
_CONCURRENCY = "The number of jobs at once is --concurrency: protojobs worker --concurrency 8."
_SCHEDULES = "Every worker fires schedules by itself: leave the option out."
_PROCESSES = "The number of worker processes is --processes: protojobs worker --processes 4."
_EXECUTOR = "Where jobs run is --executor: protojobs worker --executor process."
OPTIONS = {  # RQ, Celery, Dramatiq, Huey, arq, Laravel, Sidekiq
    "--burst": "Here it is --stop-when-empty.",
    "-b": "Here --burst is --stop-when-empty.",
    "--once": "Here it is --max-jobs 1.",
    "-A": "The application is --app: protojobs worker --app shop.jobs.",
    "-B": _SCHEDULES,
    "--beat": _SCHEDULES,
    "-c": _CONCURRENCY,
    "-t": _CONCURRENCY,
    "--threads": _CONCURRENCY,
    "-p": _PROCESSES,
    "-w": _PROCESSES,
    "--workers": _PROCESSES,
    "-P": _EXECUTOR,
    "--pool": _EXECUTOR,
    "-l": "The level of the log is --log-level: protojobs worker --log-level debug.",
    "-q": _QUEUES,
    "-Q": _QUEUES,
    "--queue": _QUEUES,
    "--queues": _QUEUES,
    "--memory": "Here it is --max-memory 512M.",
    "--tries": "How often a job is tried is a setting: max_retries, or PROTOJOBS_MAX_RETRIES.",
    "--timeout": "How long a job may run is a setting: timeout, or PROTOJOBS_TIMEOUT.",
}
COMMANDS = {  # Celery, RQ, Huey, Laravel
    "beat": "Schedules are fired by every worker, and by: protojobs scheduler",
    "purge": "A queue's jobs are deleted by: protojobs queues clear QUEUE",
    "empty": "A queue's jobs are deleted by: protojobs queues clear QUEUE",
    "inspect": "What is at work is shown by: protojobs workers, protojobs jobs list --state processing",
    "control": "Queues are stopped by: protojobs queues pause QUEUE; jobs by: protojobs jobs cancel ID",
    "events": "What happens is shown by: protojobs top",
    "flower": "A page in the browser shows jobs and workers: protojobs dashboard",
    "call": "A job is stored by: protojobs push NAME JSON",
    "enqueue": "A job is stored by: protojobs push NAME JSON",
    "multi": "Several workers are started by: protojobs worker --processes 4",
    "requeue": "Failed jobs are run again by: protojobs failed retry ID",
    "info": "How many jobs there are is shown by: protojobs stats",
    "queue:work": "Jobs are run by: protojobs worker QUEUE",
    "celery": "Jobs are run by: protojobs worker QUEUE",
    "rqworker": "Jobs are run by: protojobs worker QUEUE",
    "delay": "A job is stored by: protojobs push NAME JSON",
    "send": "A job is stored by: protojobs push NAME JSON",
}


class WorkerCommand(StoreCommand):
    """A command that starts workers."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As always. Raises a UsageError with our name for an option of others."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise _translated(error, ctx) from None


class ForeignNamesGroup(StoreGroup):
    """The root and the groups: others have options before the name of the command, and commands that we do not have."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As always. Raises a UsageError with our name for an option of others."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise _translated(error, ctx) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As always. Raises a UsageError with our name for a command of others, or for one that is in no group."""
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            root = ctx.find_root().command
            stands_alone = isinstance(root, click.Group) and root.get_command(ctx, args[0]) is not None
            hint = f"It is in no group: protojobs {args[0]}" if stands_alone else COMMANDS.get(args[0])
            if hint is not None:
                raise click.UsageError(f'There is no command "{args[0]}". {hint}', ctx)
        return super().resolve_command(ctx, args)


def _translated(error: click.NoSuchOption, ctx: click.Context) -> click.UsageError:
    hint = OPTIONS.get(error.option_name)
    return error if hint is None else click.UsageError(f'There is no option "{error.option_name}". {hint}', ctx)
