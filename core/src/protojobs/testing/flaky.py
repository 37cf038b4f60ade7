"""FlakyDriver: a driver that fails once, at the call that the test names."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

from protojobs.errors import StoreUnavailable
from protojobs.port.driver import Store

__all__ = ["FlakyDriver"]


class FlakyDriver:
    """Any driver, but its n-th call raises StoreUnavailable: before it was done, or after (the answer is lost).

    To try every place of a story, run it with `nth` = 1, 2, 3, ... until `has_failed` stays False. Calls are counted
    over all verbs, or over those named in `only`, and over all threads.
    """

    def __init__(self, driver: Store, nth: int, *, after: bool = False, only: Collection[str] = ()) -> None:
        self.calls = 0
        self.has_failed = False
        self._driver = driver
        self._nth = nth
        self._after = after
        self._only = frozenset(only)
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> object:
        value: object = getattr(self._driver, name)
        if name.startswith("_") or not callable(value) or (self._only and name not in self._only):
            return value
        return self._flaky(name, value)

    def _flaky(self, name: str, verb: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            with self._lock:
                self.calls += 1
                is_chosen = self.calls == self._nth
            if not is_chosen:
                return verb(*args, **kwargs)
            self.has_failed = True
            if self._after:
                verb(*args, **kwargs)
            raise StoreUnavailable(f"Planned failure of call {self._nth}, {name}.")

        return call
