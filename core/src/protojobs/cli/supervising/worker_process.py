"""One worker process, as the process that started it sees it: its signs of life, its report, how it is ended.

The worker's end of the connection is in `supervisor_link`.
"""

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

from protojobs.cli.supervising.supervisor_link import LINK_VARIABLE, SIGN_OF_LIFE, SignOfLife
from protojobs.worker.outcome import WorkReport

__all__ = ["WorkerProcess", "worker_command"]

RECEIVED_BYTES_MAX = 64 * 1024  # in one call; a worker sends a short line with each heartbeat
SILENCE_LEASES = 1 / 3  # two heartbeats: that leaves time in which to renew the lease


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


class WorkerProcess:
    """Starts the process. Raises OSError when the system cannot. `output`: a descriptor for its stdout and stderr."""

    def __init__(self, command: Sequence[str], now: float, *, output: int | None = None) -> None:
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, LINK_VARIABLE: str(theirs.fileno())},
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self._connection = ours
        self._received = b""
        self._has_signed = False  # since the last call of `stays_silent`
        self.started_at = now
        self.pid = self._process.pid
        self.code = 0
        self.last_sign: SignOfLife | None = None
        self.silent_s = 0.0  # since then, as far as its supervisor and the process itself were running
        self.stuck_s = 0.0  # counted likewise: since it was started without a sign of life, or since it has reported
        self.is_lease_renewed = False  # by its supervisor, while it is silent
        self.is_killed = False
        self.report: WorkReport | None = None

    @property
    def is_ready(self) -> bool:
        """Whether it has registered in the store."""
        return self.last_sign is not None

    def stays_silent(self, passed_s: float) -> bool:
        """Count `passed_s` more seconds without a sign of life. Whether it is silent, and nobody has stopped it."""
        if self._has_signed or self.last_sign is None or self.report is not None or self.is_killed:
            self._has_signed, self.is_lease_renewed, self.silent_s = False, False, 0.0
            return False
        silent_min_s = self.last_sign.lease_s * SILENCE_LEASES
        if self.silent_s + passed_s >= silent_min_s and self._is_stopped():
            return False  # frozen: its lease is there to end
        self.silent_s += passed_s
        return self.silent_s >= silent_min_s

    def is_stuck(self, passed_s: float, start_s: float, end_s: float) -> bool:
        """Count `passed_s` more seconds in which it has not begun, or has reported and not ended. Whether that takes
        longer than `start_s`, or `end_s`, though nobody has stopped it.
        """
        if self.is_killed or (self.is_ready and self.report is None):
            return False
        if not self._is_stopped():
            self.stuck_s += passed_s
        return self.stuck_s > (start_s if self.report is None else end_s)

    def silent_s_max(self, exit_bound_s: float) -> float:
        """How long it may be silent: until its longest run, and the time to end itself, are over; at least a lease."""
        if self.last_sign is None or self.last_sign.lasts_s is None:
            return float("inf")
        return max(self.last_sign.lasts_s + exit_bound_s, self.last_sign.lease_s)

    def has_ended(self) -> bool:
        """Whether it has. Receives what it has sent."""
        code = self._process.poll()
        self._receive()  # afterwards: once it has ended, all that it sent is here
        self.code = code or 0
        return code is not None

    def how_it_ended(self) -> str:
        """For the log: `4711 ended with exit code 1`."""
        if self.code < 0:
            return f"{self.pid} was ended by signal {-self.code}"
        why = f" ({self.report.reason})" if self.report is not None else ""
        return f"{self.pid} ended with exit code {self.code}{why}"

    def stop(self, level: int) -> None:
        """Pass on the first or the second signal. Before it reads the connection, only a signal itself reaches it."""
        with suppress(OSError):
            self._connection.send(str(level).encode())
        self._receive()
        if not self.is_ready:
            self._process.terminate()

    def kill(self) -> None:
        """End it, and what it has started and left in its session."""
        self.is_killed = True
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def disconnect(self) -> None:
        """Close the connection. If the process still lives, it stops."""
        self._connection.close()

    def _receive(self) -> None:
        with suppress(OSError):  # nothing to read, or nobody there
            while len(self._received) < RECEIVED_BYTES_MAX and (piece := self._connection.recv(4096)):
                self._received += piece
        *lines, self._received = self._received.split(b"\n")
        for line in lines:
            with suppress(msgspec.DecodeError):  # half a line, for its pipe was full
                if line.startswith(SIGN_OF_LIFE):
                    self.last_sign = msgspec.json.decode(line.removeprefix(SIGN_OF_LIFE), type=SignOfLife)
                    self._has_signed = True
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
