"""A worker's handle on one child process: start it, talk to it with bounded waits, end it, and say how it died."""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys

from protojobs.worker.runs.children.frames import (
    Begin,
    End,
    FrameBroken,
    FrameReader,
    FromChild,
    ToChild,
    decode_from_child,
    encode,
)

__all__ = ["ChildHandle"]

SEND_S = 10.0  # a child reads what it is sent at once; one that does not is beyond help
PIECE_BYTES = 256 * 1024
LEAVE_S = 1.5  # an idle child that is told to leave is killed after so long
GONE_S = 5.0  # a killed process is gone in milliseconds, unless the kernel holds it
_log = logging.getLogger("protojobs.worker")


class ChildHandle:
    """Used by one thread, which has also started the process. (Linux kills the child when that thread ends.)

    Raises OSError when the process cannot be started.
    """

    def __init__(self, begin: Begin) -> None:
        self.jobs = 0
        self.first_bytes = 0  # resident after its first job
        self._reader = FrameReader()
        heard, said = os.pipe()
        try:
            # A session of its own: Ctrl-C goes to all processes of the terminal, and means the worker.
            self._process = subprocess.Popen(
                # -P: its own imports come from where ours came from, and not from a `queue.py` in the current folder.
                [sys.executable, "-P", "-m", "protojobs.worker.runs.children.child", str(said)],
                stdin=subprocess.PIPE,
                pass_fds=(said,),
                start_new_session=True,
            )
        except BaseException:
            os.close(heard)
            raise
        finally:
            os.close(said)
        assert self._process.stdin is not None
        self._heard = heard
        self._input = self._process.stdin.fileno()
        os.set_blocking(self._input, False)
        self._poll = select.poll()
        self._poll.register(heard, select.POLLIN)
        self._is_lost = not self._send(encode(begin))

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def send(self, message: ToChild) -> None:
        """Send. A child that does not take it is killed, which `receive` will tell. Raises FrameBroken if too large."""
        frame = encode(message)
        if not self._is_lost and not self._send(frame):
            self._is_lost = True
            self.kill()

    def receive(self, wait_s: float) -> FromChild | None:
        """The next message, or None after `wait_s`. Raises EOFError when the child is dead and all it said is read."""
        if (message := self._next()) is not None:
            return message
        was_dead = self._process.poll() is not None  # asked before the pipe: what it said last is read all the same
        if self._poll.poll(0.0 if was_dead else max(0.0, wait_s) * 1000):
            piece = os.read(self._heard, PIECE_BYTES)
            if not piece:
                self._wait_for_end()
                raise EOFError
            self._reader.feed(piece)
            return self._next()
        if was_dead:  # the pipe stays open while a process that the job has started holds it
            raise EOFError
        return None

    def end(self) -> None:
        """Ask the child to end its run and itself."""
        self.send(End())

    def kill(self) -> None:
        """Kill the child and what its job has started."""
        if self._process.poll() is None:  # so its process id is still its own
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:  # it has not got as far as its own session, or has just gone
                self._process.kill()

    def break_off(self, why: str) -> None:
        """Kill a child that says what it must not: the job that it runs, or one before, has its pipe."""
        _log.error("a child process is killed, since its pipe holds %s", why)
        self.kill()
        self._wait_for_end()

    def close(self) -> None:
        """Let an idle child leave, kill it if it stays, and give back all that it held here."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            self._wait_for_end()
        os.close(self._heard)

    def death(self) -> str:
        """How a dead child has died: `was killed by signal 9 (SIGKILL)`, `ended with exit code 3`."""
        code = self._process.returncode
        if code is None:
            return "is beyond reach"
        if code >= 0:
            return f"ended with exit code {code}"
        try:
            name = f" ({signal.Signals(-code).name})"
        except ValueError:  # a real-time signal has no name
            name = ""
        return f"was killed by signal {-code}{name}"

    def _send(self, frame: bytes) -> bool:
        rest = memoryview(frame)
        ready = select.poll()
        ready.register(self._input, select.POLLOUT)
        while rest:
            try:
                rest = rest[os.write(self._input, rest) :]
            except BlockingIOError:
                if not ready.poll(SEND_S * 1000):
                    return False
            except OSError:  # it is dead
                return False
        return True

    def _next(self) -> FromChild | None:
        try:
            return None if (body := self._reader.next()) is None else decode_from_child(body)
        except FrameBroken as error:
            self.break_off(str(error))
            raise EOFError from None

    def _wait_for_end(self) -> None:
        """The child has closed its pipe, or was killed: it is about to be gone."""
        try:
            self._process.wait(GONE_S)
        except subprocess.TimeoutExpired:
            self.kill()
