"""How a run in a thread is ended from outside: by an exception that is raised in it."""

from __future__ import annotations

import ctypes
import sys
import threading
from types import TracebackType
from typing import TypeAlias, cast

__all__ = ["Interrupted", "interrupt", "is_handling_one", "take_back"]

_ROUNDS = 1_000  # of a loop; it is raised at the end of the first
_CHAIN_MAX = 100  # exceptions that were raised while others were handled
_Handled: TypeAlias = "BaseException | tuple[type[BaseException], BaseException, TracebackType] | None"


class Interrupted(BaseException):
    """Raised inside a run's thread to end it. No Exception, so that jobs which catch everything let it pass."""


def interrupt(thread: threading.Thread, error: type[BaseException] = Interrupted) -> None:
    """Raise it in that thread, at its next bytecode."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(error))


def take_back() -> None:
    """Called by a thread that may have been interrupted and is no more: no Interrupted is raised in it after this.

    It interrupts itself, and catches that. Python can also take an exception back that was not raised yet, but up to
    3.12 it then keeps a mark that some thread has one to raise. From then on all threads look for it, again and again;
    and on 3.11 the first one with a profiler or a tracer set (`cProfile`, coverage, a debugger) looks for ever.
    """
    try:
        interrupt(threading.current_thread())
        for _ in range(_ROUNDS):
            pass
    except Interrupted:
        return  # as it was to be


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
