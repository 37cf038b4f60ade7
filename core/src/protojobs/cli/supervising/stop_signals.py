"""Turns SIGTERM and Ctrl-C into a stop: the first one stops the worker, the second one cuts running jobs short."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

from protojobs.stopping import StopToken

__all__ = ["stopped_by_signals"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_HANGUP = getattr(signal, "SIGHUP", None)  # not on Windows


@contextmanager
def stopped_by_signals(
    stop: StopToken, note: Callable[[str, int], bytes], *, is_supervised: bool = False, ends_with_terminal: bool = False
) -> Generator[None]:
    """Tell `stop` of each signal, and write `note(signal's name, level)` to stderr. Elsewhere than in the main thread
    there are no signals to catch.

    `is_supervised`: all signals together count as one, of which the supervisor tells. Whoever stops a whole group of
    processes (systemd does) signals a worker as well as its supervisor, which passes it on; only the supervisor can say
    that a second one was meant. `ends_with_terminal`: SIGHUP counts too, unless somebody (nohup) has it ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        stop.stop(1 if is_supervised else None)
        if is_supervised:
            return
        try:
            # Straight to the file: the signal may have struck in the middle of a write to the stream.
            os.write(2, note(signal.Signals(number).name, stop.level))
        except OSError:
            pass  # nobody reads stderr any more; stopping matters more

    is_hung_up = ends_with_terminal and _HANGUP is not None and signal.getsignal(_HANGUP) is not signal.SIG_IGN
    signals = (*_SIGNALS, _HANGUP) if is_hung_up and _HANGUP is not None else _SIGNALS
    before = {number: signal.signal(number, handle) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
