"""The output of several processes on one terminal: each line begins with the name of the process that wrote it."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

import click

from protojobs.cli.showing.text import escaped_lines

__all__ = ["PrefixedOutput"]

LINE_BYTES_MAX = 64 * 1024  # a longer one is shown in pieces
NAME_WIDTH = 9
_COLOURS = ("cyan", "magenta", "yellow", "green")


class PrefixedOutput:
    """A descriptor to write to for each name; one thread for each puts its lines on stdout."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: list[str] = []

    def descriptor(self, name: str) -> int:
        """For a child process. Close it here once the child has it: the thread ends with the last that holds it."""
        reading, writing = os.pipe()
        threading.Thread(target=self._pass_on, args=(name, reading), name=f"protojobs-{name}", daemon=True).start()
        return writing

    def say(self, name: str, text: str) -> None:
        """Lines of our own."""
        with self._lock:
            if name not in self._names:
                self._names.append(name)
            colour = _COLOURS[self._names.index(name) % len(_COLOURS)]
            head = f"{name:{NAME_WIDTH}} |"
            head = click.style(head, fg=colour) if sys.stdout.isatty() and "NO_COLOR" not in os.environ else head
            with suppress(OSError):  # nobody reads it any more; the processes go on
                for line in escaped_lines(text):
                    click.echo(f"{head} {line}".rstrip())

    def _pass_on(self, name: str, reading: int) -> None:
        with os.fdopen(reading, "rb") as lines:
            while line := lines.readline(LINE_BYTES_MAX):
                self.say(name, line.decode("utf-8", "backslashreplace").rstrip("\r\n"))
