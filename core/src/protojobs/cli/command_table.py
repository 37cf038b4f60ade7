"""The table of commands. A command's module is imported when it is called, not before: `--help` stays quick."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import cast

import click

from protojobs.cli.other_tools import ForeignNamesGroup
from protojobs.errors import ConfigurationError, shown

__all__ = ["BUILT_IN", "ENTRY_POINTS", "CommandTable"]

ENTRY_POINTS = "protojobs.commands"

# name -> what it does; the module of that name has the click command as `command`. Tests hold the words together.
BUILT_IN: Mapping[str, str] = {
    "worker": "Run jobs until told to stop.",
    "dev": "Worker and dashboard, started anew when code changes.",
    "push": "Store a job, and print its id.",
    "status": "Whether all is well, on one screen.",
    "top": "Watch queues, workers and running jobs.",
    "stats": "How many jobs are in which state.",
    "jobs": "List, show and cancel jobs.",
    "failed": "List, show, retry and forget failed jobs.",
    "queues": "List, pause, resume and clear queues.",
    "workers": "List the workers that the store knows.",
    "health": "Ask a worker, or the store, how it is.",
    "explain": "Say why a job is not running.",
    "doctor": "Say what is wrong with the store, the workers and the settings.",
    "schedules": "List, explain, pause and run schedules.",
    "scheduler": "Fire schedules until told to stop.",
    "prune": "Delete old finished jobs.",
    "transfer": "Move the backlog of one store to another.",
    "migrate": "Create or upgrade the store's tables.",
    "drivers": "List the installed drivers; begin one.",
    "plugins": "List the installed plugins and their hooks.",
    "conformance": "Run the conformance kit against a driver.",
}

# What comes with an extra: name -> (the extra, what it does).
_EXTRAS = {
    "alerts": ("alerts", "Tell of failed jobs and queues that are behind."),
    "dashboard": ("dashboard", "Look and act in the browser."),
    "demo": ("demo", "See it all at work, here."),
    "metrics": ("prometheus", "The store's metrics for Prometheus."),
}


class CommandTable(ForeignNamesGroup):
    """The root: our commands by name, and those that other distributions bring by the entry points."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Ours in the order of the table, then the others by name."""
        return [*BUILT_IN, *sorted({*_installed(), *_EXTRAS} - set(BUILT_IN))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now. Raises ConfigurationError for one that is known and cannot be."""
        if cmd_name in BUILT_IN:
            return cast("click.Command", import_module(f"protojobs.cli.commands.{cmd_name}").command)
        if (entry := _installed().get(cmd_name)) is not None:
            return _loaded(entry)
        if cmd_name in _EXTRAS and not ctx.resilient_parsing:
            raise ConfigurationError(
                f'The command "{cmd_name}" is not installed.', mend=f'pip install "protojobs[{_EXTRAS[cmd_name][0]}]"'
            )
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list for `--help`, without importing one of them."""
        installed = _installed()
        with formatter.section("Commands"):
            formatter.write_dl([(name, _words(name, installed.get(name))) for name in self.list_commands(ctx)])


def _words(name: str, entry: EntryPoint | None) -> str:
    if name in BUILT_IN:
        return BUILT_IN[name]
    extra, words = _EXTRAS.get(name, ("", ""))
    if entry is None:
        return f'{words}  (pip install "protojobs[{extra}]")'
    return words or f"From {entry.dist.name if entry.dist else entry.value}."


def _installed() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}


def _loaded(entry: EntryPoint) -> click.Command:
    source = entry.dist.name if entry.dist else entry.value
    try:
        command: object = entry.load()
    except Exception as error:  # somebody else's package: the error names it
        raise ConfigurationError(
            f'The command "{entry.name}" of {source} cannot be imported. {type(error).__name__}: {error}.',
            mend=f"pip install --upgrade {source}",
        ) from error
    if not isinstance(command, click.Command):
        raise ConfigurationError(f'The command "{entry.name}" of {source} is no click command, but {shown(command)}.')
    return command
