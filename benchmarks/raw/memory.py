"""A deque, and an event for who waits."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence


class Memory:
    """A `Store` inside one process, with one worker."""

    def __init__(self) -> None:
        self._waiting: deque[str] = deque()
        self._taken: list[tuple[int, str]] = []
        self._bell = threading.Event()

    def setup(self) -> None:
        pass

    def put(self, body: str) -> None:
        self._waiting.append(body)
        self._bell.set()

    def put_many(self, bodies: Sequence[str]) -> None:
        self._waiting.extend(bodies)
        self._bell.set()

    def left(self) -> int:
        return len(self._taken) + len(self._waiting)

    def take(self, limit: int) -> Sequence[tuple[int, str]]:
        self._bell.clear()  # before the look: a push after it rings again
        waiting = self._waiting
        for key in range(min(limit, len(waiting))):
            self._taken.append((key, waiting.popleft()))
        return self._taken

    def forget(self, jobs: Sequence[tuple[int, str]]) -> None:
        self._taken = []

    def wait(self) -> None:
        self._bell.wait(0.1)


def open_store(url: str, synchronous: str) -> Memory:
    """`url` and `synchronous` say nothing here."""
    return Memory()
