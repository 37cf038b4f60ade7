"""The files of contrib/deploy, and what the command line makes of the commands in them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from protojobs.cli.entry import root
from protojobs.cli.session import Session
from protojobs.config import Settings

DEPLOY = Path(__file__).parents[2] / "contrib" / "deploy"
PROGRAM = "/srv/shop/venv/bin/protojobs"
SUPERVISING_S = 10.0  # what --processes takes beyond the workers' own time: docs/how-to/workers.md, "In production"


def stop_s() -> float:
    """Within how many seconds a worker with the default settings has ended."""
    settings = Settings()
    return settings.shutdown_grace + settings.exit_bound


def parsed(words: Sequence[str]) -> dict[str, Any]:
    """The command's parameters. Raises what the command line would complain of."""
    parent = click.Context(root, obj=Session())
    command = root.get_command(parent, words[0])
    assert command is not None, f"there is no command {words[0]}"
    return command.make_context(words[0], list(words[1:]), parent=parent).params


def arguments(line: str) -> list[str]:
    """The words behind the program of a command line."""
    program, *words = shlex.split(line)
    assert program == PROGRAM
    return words


def settings_of(text: str) -> dict[str, list[str]]:
    """`Key=value` lines, as systemd and Supervisor have them: each key with its values."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if "=" in line and not line.startswith(("#", ";")):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found
