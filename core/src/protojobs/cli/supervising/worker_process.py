"""One worker process as its supervisor sees it; the other end of the line is in `supervised`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from protojobs.cli.supervising.supervisor_link import ALIVE, LINE, Alive
from protojobs.worker.outcome import WorkReport

__all__ = ["SupervisedProcess", "worker_command"]

SAID_BYTES_MAX = 64 * 1024  # taken in at one look; a worker says a short line with each heartbeat
MISSED_LEASES = 1 / 3  # without a word, as long as two heartbeats: there is time left in which to renew the lease


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
    """Starts it. Raises OSError when the system cannot. `output`: a descriptor for what it writes, instead of ours."""

    def __init__(self, command: Sequence[str], now: float, *, output: int | None = None) -> None:
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
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
        self._has_spoken = False  # since the last look
        self.began_s = now
        self.pid = self._process.pid
        self.code = 0
        self.alive: Alive | None = None  # its last sign of life
        self.silent_s = 0.0  # since then, as far as its supervisor and the process itself were running
        self.stuck_s = 0.0  # counted likewise: since it was started without a sign of life, or since it has reported
        self.is_helped = False  # while it is silent: somebody renews its lease
        self.is_killed = False
        self.report: WorkReport | None = None

    @property
    def is_ready(self) -> bool:
        """Whether it has begun: it stands in the store."""
        return self.alive is not None

    def stays_silent(self, passed_s: float) -> bool:
        """Count so many seconds without a word. Whether it has missed its beats, though nobody has stopped it."""
        if self._has_spoken or self.alive is None or self.report is not None or self.is_killed:
            self._has_spoken, self.is_helped, self.silent_s = False, False, 0.0
            return False
        missed_s = self.alive.lease_s * MISSED_LEASES
        if self.silent_s + passed_s >= missed_s and self._is_stopped():
            return False  # frozen: its lease is there to end
        self.silent_s += passed_s
        return self.silent_s >= missed_s

    def is_stuck(self, passed_s: float, start_s: float, end_s: float) -> bool:
        """Count so many seconds in which it has not begun, or has not ended after its report. Whether `start_s`, or
        `end_s`, are over, though nobody has stopped it.
        """
        if self.is_killed or (self.is_ready and self.report is None):
            return False
        if not self._is_stopped():
            self.stuck_s += passed_s
        return self.stuck_s > (start_s if self.report is None else end_s)

    def silent_s_max(self, exit_bound_s: float) -> float:
        """How long it may be silent: until its longest run, and the time to end itself, are over; at least a lease."""
        if self.alive is None or self.alive.lasts_s is None:
            return float("inf")
        return max(self.alive.lasts_s + exit_bound_s, self.alive.lease_s)

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
            with suppress(msgspec.DecodeError):  # half a line, for its pipe was full
                if line.startswith(ALIVE):
                    self.alive = msgspec.json.decode(line.removeprefix(ALIVE), type=Alive)
                    self._has_spoken = True
                else:
                    self.report = msgspec.json.decode(line, type=WorkReport)
                    self.stuck_s = 0.0

    def _is_stopped(self) -> bool:
        """Whether a signal or a debugger has stopped it, where /proc tells."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_bytes()
        except OSError:
            return False
        return stat.rpartition(b") ")[2][:1] in (b"T", b"t")
