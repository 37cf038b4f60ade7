"""The two processes of `protojobs dev`: a worker that can be replaced, and the dashboard."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

from protojobs.cli.development.prefixed_output import PrefixedOutput
from protojobs.cli.exits import Exit
from protojobs.cli.supervising.worker_process import WorkerProcess, worker_command
from protojobs.clock import SYSTEM_CLOCK
from protojobs.stopping import StopToken

__all__ = ["Dashboard", "DevWorker"]

DRAIN_S = 2.0  # for running jobs to finish, before they are cut short
CUT_S = 3.0  # for the worker to give them back, before it is killed
GONE_S = 2.0
AGAIN_S = 2.0  # after it has crashed
LOOK_S = 0.05
_NEEDS_A_CHANGE = (Exit.USAGE, Exit.NOT_SUPPORTED, Exit.NOT_MIGRATED)  # another start ends the same way


class DevWorker:
    """One at a time. It ends when this process does, however that ends."""

    def __init__(self, queues: Sequence[str], lines: PrefixedOutput) -> None:
        self.code = 0  # of the last one that ended by itself
        self.needs_a_change = False
        self._command = worker_command(["worker", *(queues or ["--all-queues"])])
        self._lines = lines
        self._process: WorkerProcess | None = None
        self._is_announced = False
        self._starts_at = 0.0

    def look(self) -> None:
        """Start it if it is time, and see whether it has begun or ended."""
        now = SYSTEM_CLOCK.monotonic()
        if self._process is None:
            if not self.needs_a_change and now >= self._starts_at:
                self._start(now)
            return
        if self._process.has_ended():
            self._ended(self._process, now)
        elif self._process.is_ready and not self._is_announced:
            self._is_announced = True
            self._lines.say("dev", f"worker {self._process.pid} takes jobs")

    def replace(self, stop: StopToken) -> None:
        """Let it finish what it can within DRAIN_S, and start another."""
        self.end(stop)
        self.needs_a_change, self._starts_at = False, 0.0

    def end(self, stop: StopToken) -> None:
        """End it within DRAIN_S, CUT_S and GONE_S. A second Ctrl-C, level 2 of `stop`, takes the first of them away."""
        process, self._process = self._process, None
        if process is None:
            return
        before = stop.level
        process.stop(1)
        if not _waited(process, DRAIN_S, stop, before):
            process.stop(2)
            if not _waited(process, CUT_S, stop, 2):
                process.kill()
                _waited(process, GONE_S, stop, 2)
        process.disconnect()

    def _start(self, now: float) -> None:
        output = self._lines.descriptor("worker")
        try:
            self._process = WorkerProcess(self._command, now, output=output)
            self._is_announced = False
        finally:
            os.close(output)

    def _ended(self, process: WorkerProcess, now: float) -> None:
        process.disconnect()
        self._process, self.code = None, process.code
        self.needs_a_change = process.code in _NEEDS_A_CHANGE
        self._starts_at = now + AGAIN_S
        what = "it starts again when the code has changed" if self.needs_a_change else f"again in {AGAIN_S:g} s"
        self._lines.say("dev", f"worker {process.how_it_ended()}; {what}")


class Dashboard:
    """`protojobs dashboard` on this machine. It ends when this process does, however that ends."""

    def __init__(self, port: int, lines: PrefixedOutput) -> None:
        output = lines.descriptor("dashboard")
        self._lines = lines
        self._is_over = False
        try:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "protojobs.cli.development.child_command",
                    "dashboard",
                    "--port",
                    str(port),
                ],
                stdin=subprocess.PIPE,  # ours until we end; see there
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C means us; we pass it on
            )
        finally:
            os.close(output)

    def look(self) -> None:
        """Say so if it has ended, once; the worker goes on."""
        if not self._is_over and (code := self._process.poll()) is not None:
            self._is_over = True
            self._lines.say("dev", f"the dashboard ended with exit code {code}; the worker goes on")

    def end(self) -> None:
        """Ask it to end."""
        with suppress(ProcessLookupError):
            self._process.terminate()

    def wait(self) -> None:
        """Until it has ended, or GONE_S: then it is killed."""
        try:
            self._process.wait(GONE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _waited(process: WorkerProcess, seconds: float, stop: StopToken, level: int) -> bool:
    """Whether it has ended. Waits so long, or until somebody wants to stop more than that `level`."""
    ends_at = SYSTEM_CLOCK.monotonic() + seconds
    while not process.has_ended():
        if SYSTEM_CLOCK.monotonic() >= ends_at or stop.level > max(level, 1):
            return False
        SYSTEM_CLOCK.sleep(LOOK_S)
    return True
