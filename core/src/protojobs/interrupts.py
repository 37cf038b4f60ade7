"""How a run in a thread is ended from outside: by an exception that is raised in it."""

from __future__ import annotations

import ctypes
import sys
import threading
from types import TracebackType
from typing import TypeAlias, cast

__all__ = ["Interrupted", "interrupt", "is_handling_one", "take_back"]

_BYTECODES = 1_000  # the first that ends a round of a loop is where it strikes
_CHAIN_MAX = 100  # exceptions that were raised while others were handled
_Handled: TypeAlias = "BaseException | tuple[type[BaseException], BaseException, TracebackType] | None"


class Interrupted(BaseException):
    """Raised inside a run's thread to end it. No Exception, so that jobs which catch everything let it pass."""


def interrupt(thread: threading.Thread) -> None:
    """Raise Interrupted in another thread, at its next bytecode."""
    _aim_at(thread)


def take_back() -> None:
    """Called by a thread that may have been interrupted and is no more: what has not struck yet shall not strike later.

    It strikes here. To take it back unraised, Python's interface has another way, which up to 3.12 leaves a mark that
    something is aimed at some thread: all threads look for it from then on, at every bytecode that looks for signals,
    and on 3.11 the first one with a profiler or a tracer set (`cProfile`, coverage, a debugger) looks for ever.
    """
    try:
        _aim_at(threading.current_thread())
        for _ in range(_BYTECODES):
            pass
    except Interrupted:
        pass


def _aim_at(thread: threading.Thread) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Interrupted))


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
