"""The doctor's examination, on a thread: its page shows the latest, and takes none of the store's time itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from msgspec import Struct

from protojobs.clock import SYSTEM_CLOCK, within
from protojobs.errors import ProtojobsError
from protojobs.port.diagnosis import Finding

__all__ = ["Examination", "Examined"]

FRESH_S = 60.0  # an examination that is older is made anew by whoever looks
AGAIN_S = 5.0  # ... and one that somebody asks for, not more often than this
LIMIT_S = 30.0


class Examined(Struct, frozen=True, kw_only=True):
    """What was found. `error` says why there is nothing new."""

    findings: Sequence[Finding] | None = None
    error: str = ""
    is_running: bool = False


class Examination:
    """The latest examination that this process has made, for everybody who looks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest = Examined()
        self._made_at: float | None = None

    def latest(self, examine: Callable[[], Sequence[Finding]], *, is_asked_for: bool) -> Examined:
        """What was found last. Begins a new examination where that is too old; there is never more than one."""
        with self._lock:
            age_s = None if self._made_at is None else SYSTEM_CLOCK.monotonic() - self._made_at
            is_old = age_s is None or age_s > (AGAIN_S if is_asked_for else FRESH_S)
            if is_old and not self._latest.is_running:
                # First: where no thread can be had, none is said to be running. It ends behind this lock.
                threading.Thread(target=self._run, args=(examine,), name="protojobs-doctor", daemon=True).start()
                self._latest = Examined(findings=self._latest.findings, is_running=True)
            return self._latest

    def _run(self, examine: Callable[[], Sequence[Finding]]) -> None:
        try:
            with within(LIMIT_S):
                found = Examined(findings=examine())
        except ProtojobsError as error:
            found = Examined(error=str(error))
        except Exception as error:  # noqa: BLE001  (a driver's mistake: the page must not wait for ever)
            found = Examined(error=f"{type(error).__name__}: {error}")
        with self._lock:
            self._latest, self._made_at = found, SYSTEM_CLOCK.monotonic()
