"""How `doctor` and `explain` write numbers, names and times in their sentences."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import datetime, timedelta

from protojobs.errors import one_line

__all__ = ["at", "counted", "cut", "listed", "named", "span", "typed", "worker_of"]

_SHOWN_MAX = 5  # names in one sentence; a store may have thousands
_CHARS_MAX = 100  # of one text from the store, which may hold anything


def counted(number: int, noun: str) -> str:
    """`1 job`, `2,000 jobs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def cut(text: str) -> str:
    """A text from the store, on one line, and no longer than a sentence can bear."""
    return one_line(text, _CHARS_MAX)


def named(name: str) -> str:
    """A name in a sentence."""
    return f'"{cut(name)}"'


def typed(*words: str) -> str:
    """A command to be copied into a shell; what the words hold stays text there, whoever stored it."""
    return shlex.join(("protojobs", *words))


def worker_of(apps: Sequence[str], *queues: str) -> str:
    """The command that starts a worker of these queues. A process whose settings name no application knows none."""
    return typed("worker", *queues, *(word for app in apps or ("your.module",) for word in ("--app", app)))


def listed(names: Sequence[str]) -> str:
    """`"a", "b" and 7 more`."""
    shown = ", ".join(named(name) for name in names[:_SHOWN_MAX])
    return shown if len(names) <= _SHOWN_MAX else f"{shown} and {len(names) - _SHOWN_MAX:,} more"


def at(moment: datetime | None) -> str:
    """`2026-11-24 13:40:35 UTC`."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment is not None else "an unknown time"


def span(length: timedelta | float) -> str:
    """A length of time (or seconds): `0.4 s`, `41.0 s`, `3 min`, `2.5 h`, `5.0 days`; never less than nothing."""
    seconds = max(length.total_seconds() if isinstance(length, timedelta) else length, 0.0)
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3_600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"
