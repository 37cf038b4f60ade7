"""One worker process as its supervisor sees it; the other end of the line is in `supervised`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from protojobs.cli.supervised import LINE, READY
from protojobs.outcomes import WorkReport

__all__ = ["SupervisedProcess", "worker_command"]

SAID_BYTES_MAX = 64 * 1024  # a worker says three short lines in its life


def worker_command(arguments: Sequence[str]) -> list[str]:
    """The same command line without `--processes N`, for a fresh interpreter."""
    kept: list[str] = []
    rest = iter(arguments)
    for word in rest:
        if word == "--":
            kept += [word, *rest]
        elif word == "--processes":
            next(rest, None)
        elif not word.startswith("--processes="):
            kept.append(word)
    # -P: the worker itself puts the current folder on the path, as it does when a person starts it
    return [sys.executable, "-P", "-m", "protojobs.cli", *kept]


class SupervisedProcess:
    """Starts it. Raises OSError when the system cannot."""

    def __init__(self, command: Sequence[str], now: float) -> None:
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                env={**os.environ, LINE: str(theirs.fileno())},
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self._line = ours
        self._said = b""
        self.began_s = now
        self.pid = self._process.pid
        self.code = 0
        self.is_ready = False
        self.is_killed = False
        self.report: WorkReport | None = None

    def has_ended(self) -> bool:
        """Look whether it has, and take in what it said."""
        code = self._process.poll()
        self._listen()  # after the look: once it has ended, all that it said is here
        self.code = code or 0
        return code is not None

    def how_it_ended(self) -> str:
        """For the log: `4711 ended with exit code 1`."""
        if self.code < 0:
            return f"{self.pid} was ended by signal {-self.code}"
        why = f" ({self.report.reason})" if self.report is not None else ""
        return f"{self.pid} ended with exit code {self.code}{why}"

    def stop(self, level: int) -> None:
        """Pass on the first or the second signal. Before it listens to the line only the signal itself reaches it."""
        with suppress(OSError):
            self._line.send(str(level).encode())
        self._listen()
        if not self.is_ready:
            self._process.terminate()

    def kill(self) -> None:
        """End it, and what it has started and left in its session."""
        self.is_killed = True
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def hang_up(self) -> None:
        """End the line. If it still lives, it stops."""
        self._line.close()

    def _listen(self) -> None:
        with suppress(OSError):  # nothing to read, or nobody there
            while len(self._said) < SAID_BYTES_MAX and (piece := self._line.recv(4096)):
                self._said += piece
        *lines, self._said = self._said.split(b"\n")
        for line in lines:
            if line == READY:
                self.is_ready = True
            else:
                with suppress(msgspec.DecodeError):
                    self.report = msgspec.json.decode(line, type=WorkReport)
