"""Real processes for the fault tests: started, listened to, killed with -9, frozen, thawed. Every wait is bounded."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import IO, cast

import pytest

from protojobs.testing.conformance.actor import URL_VARIABLE
from protojobs.testing.conformance.levels import NOT_RUN
from protojobs.testing.conformance.steps import PATIENCE_S

__all__ = ["Child", "Children", "Said", "children_on"]

Said = list[object]

SILENCE_S = 1.0


class Child:
    """One process of `actor.py`, and what it said so far."""

    def __init__(self, url: str, role: str) -> None:
        self.role = role
        self.said: list[Said] = []
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "protojobs.testing.conformance.actor", role],
            env={**os.environ, URL_VARIABLE: url},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def hear(self, count: int = 1) -> Said:
        """Wait until it has said `count` more things; the last of them."""
        for _ in range(count):
            try:
                line = self._lines.get(timeout=PATIENCE_S)
            except queue.Empty:
                self._process.kill()
                raise AssertionError(f"for {PATIENCE_S:g} s nothing more was heard: {self.fate()}") from None
            assert line is not None, self.fate()
            self._keep(line)
        return self.said[-1]

    def hear_up_to(self, count: int) -> None:
        """Wait until it has said `count` more things, or has fallen silent since there was nothing left to do."""
        for _ in range(count):
            try:
                line = self._lines.get(timeout=SILENCE_S)
            except queue.Empty:
                return
            assert line is not None, self.fate()
            self._keep(line)

    def tell(self) -> None:
        """Give it the line that it waits for."""
        pipe = self._pipe(self._process.stdin)
        pipe.write("go\n")
        pipe.flush()

    def kill(self) -> list[Said]:
        """Kill it with no warning, where it stands; all that it ever said."""
        self._process.kill()
        return self.ended()

    def ended(self) -> list[Said]:
        """Wait for its end; all that it ever said."""
        self._process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        while (line := self._lines.get(timeout=PATIENCE_S)) is not None:
            self._keep(line)
        self._lines.put(None)  # whoever asks again hears the same
        return self.said

    def fate(self) -> str:
        """In words, for a failure: how it ended, what it said, and what is on its stderr."""
        code = self._process.wait(PATIENCE_S)
        self._errors.seek(0)
        errors = self._errors.read().decode(errors="replace")[-2_000:] or "nothing\n"
        return (
            f"a process of its own that was to {self.role} ended with exit code {code}."
            f" It had said: {self.said}. On its stderr is:\n{errors}"
        )

    def freeze(self) -> None:
        """Stop it where it stands."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it if it still runs, and give back what it cost."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            try:
                self._pipe(pipe).close()
            except BrokenPipeError:
                continue  # it was killed with a line unread

    def _read(self) -> None:
        for line in self._pipe(self._process.stdout):
            self._lines.put(line)
        self._lines.put(None)

    def _keep(self, line: str) -> None:
        if line.endswith("\n"):  # a kill may have cut the last line in two: that was not said
            self.said.append(cast("Said", json.loads(line)))

    def _pipe(self, pipe: IO[str] | IO[bytes] | None) -> IO[str]:
        return cast("IO[str]", pipe)


class Children:
    """The processes of one test."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._all: list[Child] = []

    def __call__(self, role: str) -> Child:
        """One more process."""
        child = Child(self._url, role)
        self._all.append(child)
        return child

    def close(self) -> None:
        """End those that still run."""
        for child in self._all:
            child.close()


def children_on(url: str | None) -> Iterator[Children]:
    """Processes on the store at the URL, for as long as the caller wants them."""
    if url is None:
        pytest.skip(f"{NOT_RUN}processes of their own need the fixture `store_url`")
    children = Children(url)
    try:
        yield children
    finally:
        children.close()
