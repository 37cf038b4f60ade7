"""A job may call `os.fork()`. The copy of this process that it makes runs the rest of that job's own code, and no more.

Whatever calls foreign code remembers which process it is, and asks here when that code has come to its end: a copy must
not settle the job, take the next one, or answer on the pipe of its original. It ends where a script would.
"""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress

__all__ = ["end_if_copied"]


def end_if_copied(pid: int, error: BaseException | None = None) -> None:
    """End this process if it is another than `pid`, as a script with that `error` would: by `sys.exit(code)` with that
    code, by any other exception with 1 and a traceback. Functions of `atexit` are the original's, and are not called.
    """
    if os.getpid() == pid:
        return
    code = 0
    with suppress(BaseException):  # a copy ends, whatever the job has left of its streams, or of its exception
        if isinstance(error, SystemExit):
            is_number = isinstance(error.code, int)
            code = error.code if is_number else int(error.code is not None)
            if error.code is not None and not is_number:
                sys.stderr.write(f"{error.code}\n")
        elif error is not None:
            code = 1
            traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code & 0xFF)
