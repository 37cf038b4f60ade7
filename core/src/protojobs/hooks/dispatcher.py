"""The thread on which a worker's observers run, so that neither its jobs nor its claim loop wait for them."""

from __future__ import annotations

import logging
import queue as queues
import sys
import threading
from collections.abc import Collection
from itertools import islice
from typing import cast

from protojobs.clock import SYSTEM_CLOCK
from protojobs.events import Event, JobFailed, JobProcessed, JobRetrying
from protojobs.forks import end_if_copied, this_process
from protojobs.hooks.hooks import Hooks

__all__ = ["Dispatcher"]

BACKLOG_MAX = 10_000  # events waiting for slow observers in one worker; beyond it they are dropped and counted
BACKLOG_BYTES_MAX = 64 * 1024 * 1024  # and what they hold of their jobs, about
_PARTS_MAX = 1_000  # of one result, that are looked at to judge its size
_OBJECT_BYTES, _EXCEPTION_BYTES = 64 * 1024, 4 * 1024  # taken for their size: to ask them would run their code
_SCALARS = frozenset({type(None), bool, int, float})
_SEQUENCES = frozenset({list, tuple, set, frozenset})
_log = logging.getLogger("protojobs.hooks")


class Dispatcher:
    """A worker's thread for observers, so that neither its jobs nor its claim loop ever wait for them."""

    def __init__(self, hooks: Hooks) -> None:
        self.dropped = 0
        self._hooks = hooks
        self._backlog: queues.Queue[tuple[Event, int] | None] = queues.Queue(BACKLOG_MAX)
        self._bytes_in = self._bytes_out = 0  # each is written by one thread
        self._thread: threading.Thread | None = None

    def send(self, event: Event) -> None:
        """Hand the event over. With the backlog full it is dropped and counted."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="protojobs-observers", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # the claim loop must not end for it
                self.dropped += 1
                _log.error("an event is dropped, no thread can be started to tell observers: %s", error)
                return
            self._thread = thread
        size = _bytes_of(event)
        waiting = self._bytes_in - self._bytes_out
        try:
            if waiting and waiting + size > BACKLOG_BYTES_MAX:
                raise queues.Full
            self._backlog.put_nowait((event, size))
        except queues.Full:
            self.dropped += 1
            if self.dropped == 1:
                count = self._backlog.qsize()
                _log.error("observers are too slow: %d events wait, further ones are dropped", count)
        else:
            self._bytes_in += size

    def close(self, timeout: float) -> None:
        """Return when all events sent so far have been observed, or after `timeout` seconds."""
        if self._thread is None:
            return
        ends_at = SYSTEM_CLOCK.monotonic() + timeout
        try:
            self._backlog.put(None, timeout=timeout)
        except queues.Full:
            count = self._backlog.qsize()
            _log.error("observers did not catch up within %g s, %d events are dropped", timeout, count)
            self._end_now()
        else:
            self._thread.join(max(0.0, ends_at - SYSTEM_CLOCK.monotonic()))
        self._thread = None

    def _end_now(self) -> None:
        while True:  # only `send` puts something in, in this very thread
            try:
                self._backlog.get_nowait()
            except queues.Empty:
                self._backlog.put_nowait(None)
                return

    def _run(self) -> None:
        process = this_process()
        while (waiting := self._backlog.get()) is not None:
            event, size = waiting
            try:
                self._hooks.notify(event)
            except BaseException as error:  # noqa: BLE001  (a listener's sys.exit() must not end the thread of all the others)
                _log.error("a listener to %s wanted to end the program, and may not: %r", event.event_name, error)
            end_if_copied(process)
            self._bytes_out += size
            del event, waiting  # its result or exception may be large


def _bytes_of(event: Event) -> int:
    """About how much memory an event keeps of its job. Runs none of the job's code."""
    if isinstance(event, JobFailed | JobRetrying):
        return len(event.error) + _EXCEPTION_BYTES
    if not isinstance(event, JobProcessed) or event.result is None:
        return 0
    left: list[object] = [event.result]
    size = looked = unseen = 0
    while left and looked < _PARTS_MAX:
        one = left.pop()
        looked += 1
        kind: type[object] = type(one)
        if kind in _SCALARS:
            size += 32
        elif kind in (str, bytes, bytearray):
            size += sys.getsizeof(one)
        elif kind is dict or kind in _SEQUENCES:
            size += sys.getsizeof(one)
            parts = cast("dict[object, object]", one).values() if kind is dict else cast("Collection[object]", one)
            left += islice(parts, _PARTS_MAX)
            unseen += max(0, len(parts) - _PARTS_MAX)
        else:
            size += _OBJECT_BYTES
    return size + size * (unseen + len(left)) // max(1, looked)
