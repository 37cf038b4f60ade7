"""A forked child of the test's own process, which tells what it found; and what a process has open."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import select
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import NoReturn, cast

import pytest

from protojobs.clock import SYSTEM_CLOCK
from protojobs.testing.conformance.levels import NOT_CLAIMED
from protojobs.testing.conformance.steps import PATIENCE_S

if sys.platform != "win32":
    import fcntl

__all__ = ["Told", "can_mark", "in_a_fork", "mark_all", "open_files", "unmarked"]

Told = dict[str, object]

OPEN = "/dev/fd"


def in_a_fork(story: Callable[[], Told]) -> Told:
    """What the story tells that is played in a forked child; the test fails if it raises or does not come back."""
    if not hasattr(os, "fork"):
        pytest.skip(f"{NOT_CLAIMED}forks, which this system has not")
    with tempfile.TemporaryFile() as stack:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            faulthandler.dump_traceback_later(PATIENCE_S / 2, file=stack)
            _play(story, writing)
        os.close(writing)
        heard = _hear(reading)
        os.close(reading)
        if heard is None:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        stack.seek(0)
        stands = stack.read().decode(errors="replace")
    assert heard is not None, f"a verb in a forked child did not come back within {PATIENCE_S:g} s:\n{stands}"
    assert heard, f"a forked child ended with exit code {os.waitstatus_to_exitcode(status)} and told nothing"
    told = cast("Told", json.loads(heard))
    assert "raised" not in told, f"in a forked child:\n{told['raised']}"
    return told


def _play(story: Callable[[], Told], writing: int) -> NoReturn:
    """In the child: nothing of what stands on the parent's stack may run, so it ends here."""
    try:
        os.write(writing, json.dumps(_told(story)).encode())
    finally:
        os._exit(0)


def _told(story: Callable[[], Told]) -> Told:
    try:
        return story()
    except Exception:  # noqa: BLE001  the parent is told
        return {"raised": traceback.format_exc()[-3_000:]}


def _hear(reading: int) -> bytes | None:
    """All that is written there until its end; None where the end does not come."""
    heard, ends_at = b"", SYSTEM_CLOCK.monotonic() + PATIENCE_S
    while select.select([reading], [], [], max(0.0, ends_at - SYSTEM_CLOCK.monotonic()))[0]:
        piece = os.read(reading, 65_536)
        if not piece:
            return heard
        heard += piece
    return None


def open_files() -> dict[int, tuple[int, int]]:
    """Files, sockets and pipes, by number: which it is."""
    found: dict[int, tuple[int, int]] = {}
    for name in os.listdir(OPEN) if os.path.isdir(OPEN) else ():
        try:
            known = os.fstat(int(name))
        except OSError:  # the listing's own
            continue
        found[int(name)] = (known.st_dev, known.st_ino)
    return found


def mark_all() -> None:
    """Mark all that is open now: the mark stays with what was opened, not with its number, and does nothing."""
    for number in open_files():
        _set_owner(number)


def unmarked() -> list[int]:
    """The numbers of what was opened since."""
    return [number for number in open_files() if _owner(number) != os.getpid()]


def can_mark() -> bool:
    """Whether this system keeps such marks."""
    with open(__file__, "rb") as file:
        _set_owner(file.fileno())
        return _owner(file.fileno()) == os.getpid()


def _set_owner(number: int) -> None:
    """Who would get its SIGIO, which nobody asks for."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            fcntl.fcntl(number, fcntl.F_SETOWN, os.getpid())


def _owner(number: int) -> int:
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            return fcntl.fcntl(number, fcntl.F_GETOWN)
    return 0
