"""How a run in a thread is ended from outside: by an exception that is raised in it."""

from __future__ import annotations

import ctypes
import sys
import threading
from types import TracebackType
from typing import TypeAlias, cast

__all__ = ["Interrupted", "is_handling_one", "raise_in"]

_CHAIN_MAX = 100  # exceptions that were raised while others were handled
_Handled: TypeAlias = "BaseException | tuple[type[BaseException], BaseException, TracebackType] | None"


class Interrupted(BaseException):
    """Raised inside a run's thread to end it. No Exception, so that jobs which catch everything let it pass."""


def raise_in(thread: threading.Thread, exception: type[BaseException] | None) -> None:
    """Raise `exception` in another thread at its next bytecode; None takes back one that has not struck yet."""
    target = ctypes.py_object(exception) if exception else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), target)


def is_handling_one(thread: threading.Thread) -> bool:
    """Whether the thread is in an `except` or a `finally` that an Interrupted has brought it to."""
    of_threads = sys._current_exceptions()  # pyright: ignore[reportPrivateUsage]  (documented)
    handled = cast("dict[int, _Handled]", of_threads).get(thread.ident or 0)
    error = handled[1] if isinstance(handled, tuple) else handled  # a tuple before Python 3.12
    for _ in range(_CHAIN_MAX):
        if error is None or isinstance(error, Interrupted):
            break
        error = error.__context__
    return isinstance(error, Interrupted)
