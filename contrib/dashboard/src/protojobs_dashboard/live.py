"""What tells a page that it is out of date: a stream of "changed" signals, without a word of what has changed.

However many pages are open, one of their streams looks at the store, at most once a second, and compares a few cheap
figures. So a signal leaks nothing, and the regions that fetch themselves again pass the same checks as any page.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Hashable

import anyio
import anyio.to_thread

from protojobs.clock import SYSTEM_CLOCK, Clock
from protojobs.errors import ProtojobsError

__all__ = ["STREAMS_MAX", "Live"]

STREAMS_MAX = 50  # of one process; the pages beyond poll
LOOK_EVERY_S = 1.0
BEAT_EVERY_S = 15.0  # a comment, before a proxy thinks the stream dead
STREAM_S = 600.0  # then the browser connects again, and is asked again who it is


class Live:
    """The version of what the store holds, and the streams that tell it. `look` gives the figures; it may fail."""

    def __init__(self, look: Callable[[], Hashable], clock: Clock = SYSTEM_CLOCK) -> None:
        self._look = look
        self._clock = clock
        self._figures: Hashable = None
        self._version = 0
        self._looked_at: float | None = None
        self._is_looking = False
        self.streams = 0

    @property
    def is_full(self) -> bool:
        """Whether one more page must poll."""
        return self.streams >= STREAMS_MAX

    def touch(self) -> None:
        """Something was done here, which the figures may not show: the pause of a queue."""
        self._version += 1

    async def version(self) -> int:
        """The number that is one more with every change; asks the store when nobody has for a second."""
        now = self._clock.monotonic()
        if self._is_looking or (self._looked_at is not None and now - self._looked_at < LOOK_EVERY_S):
            return self._version
        self._is_looking = True
        try:
            figures = await anyio.to_thread.run_sync(self._looked, abandon_on_cancel=True)
        finally:
            self._is_looking, self._looked_at = False, self._clock.monotonic()
        if figures != self._figures:
            self._figures, self._version = figures, self._version + 1
        return self._version

    async def stream(self, seen: str = "") -> AsyncIterator[str]:
        """Server-sent events: `changed` with the version, whenever it is another. `seen` is the one known already.

        A page that knows none yet is told `changed` at once: something may have happened between its making and this.
        """
        self.streams += 1
        try:
            ends = self._clock.monotonic() + STREAM_S
            told = await self.version()
            beaten = self._clock.monotonic()
            name = "hello" if seen == str(told) else "changed"
            yield f"retry: 3000\nid: {told}\nevent: {name}\ndata: {told}\n\n"
            while (now := self._clock.monotonic()) < ends:
                await anyio.sleep(LOOK_EVERY_S)
                if (version := await self.version()) != told:
                    told, beaten = version, now
                    yield f"id: {version}\nevent: changed\ndata: {version}\n\n"
                elif now - beaten >= BEAT_EVERY_S:
                    beaten = now
                    yield ": beat\n\n"
        finally:
            self.streams -= 1

    def _looked(self) -> Hashable:
        try:
            return self._look()
        except ProtojobsError as error:  # that it does not answer (any more) is something to show, too
            return type(error).__name__
