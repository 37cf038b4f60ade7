"""A job may call `os.fork()`. The copy of this process that it makes runs the rest of that job's own code, and no more.

Whatever calls foreign code remembers which process it is, and asks here when that code has come to its end: a copy must
not settle the job, take the next one, or answer on the pipe of its original. It ends where a script would.
"""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress

__all__ = ["end_if_copied", "this_process"]

_process = 0  # how often this process was copied since it began with Python; `os.getpid()` would be a system call


def this_process() -> int:
    """A number that is another in every copy of this process."""
    return _process


def end_if_copied(process: int, error: BaseException | None = None) -> None:
    """End this process if `this_process()` was another when the foreign code was called.

    It ends as a script with that `error` would: `sys.exit(code)` by that code, any other exception by 1 and a
    traceback. Functions of `atexit` are the original's, and are not called.
    """
    if _process == process:
        return
    code = 0
    with suppress(BaseException):  # a copy ends, whatever the job has left of its streams, or of its exception
        code = 0 if error is None else _exit_code(error)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code & 0xFF)


def _exit_code(error: BaseException) -> int:
    if not isinstance(error, SystemExit):
        traceback.print_exception(error)
        return 1
    if isinstance(error.code, int):
        return error.code
    if error.code is not None:
        sys.stderr.write(f"{error.code}\n")
    return int(error.code is not None)


def _is_a_copy() -> None:
    global _process
    _process += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_is_a_copy)
