"""What the workers of other libraries call their options: whoever types one of those is told ours."""

from __future__ import annotations

import click

from protojobs.cli.options import StoreCommand

__all__ = ["OURS", "WorkerCommand"]

_QUEUES = "Queues are named without an option: protojobs worker emails default."
_CONCURRENCY = "The number of jobs at once is --concurrency."
OURS = {  # RQ, Celery, Dramatiq, Huey, arq, Laravel, Sidekiq
    "--burst": "Here it is --stop-when-empty.",
    "-b": "Here --burst is --stop-when-empty.",
    "--once": "Here it is --max-jobs 1.",
    "-A": "The application is --app.",
    "-c": _CONCURRENCY,
    "-t": _CONCURRENCY,
    "--threads": _CONCURRENCY,
    "-p": "The number of worker processes is --processes.",
    "-w": "The number of worker processes is --processes.",
    "--workers": "The number of worker processes is --processes.",
    "-P": "Where jobs run is --executor.",
    "--pool": "Where jobs run is --executor.",
    "-l": "The level of the log is --log-level.",
    "-q": _QUEUES,
    "-Q": _QUEUES,
    "--queue": _QUEUES,
    "--queues": _QUEUES,
    "--memory": "Here it is --max-memory 512M.",
    "--tries": "How often a job is tried is a setting: max_retries, or PROTOJOBS_MAX_RETRIES.",
    "--timeout": "How long a job may run is a setting: timeout, or PROTOJOBS_TIMEOUT.",
}


class WorkerCommand(StoreCommand):
    """A command that starts workers."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As always. Raises a UsageError with our name for an option of others."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if (ours := OURS.get(error.option_name)) is None:
                raise
            raise click.UsageError(f'There is no option "{error.option_name}". {ours}', ctx) from None
