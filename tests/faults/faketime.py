"""A wall clock that is wrong, or steps, for one process: libfaketime, found here or fetched as a Debian package."""

from __future__ import annotations

import os
from pathlib import Path

import servers

__all__ = ["SteppedClock", "wrong_clock"]

LIBRARY = "usr/lib/*/faketime/libfaketimeMT.so.1"


def wrong_clock(seconds: float) -> dict[str, str]:
    """The environment of a process whose clock is so far ahead (negative: behind). Its monotonic clock is right.

    Raises servers.Unavailable where the library cannot be had.
    """
    return _preloaded() | {"FAKETIME": f"{seconds:+g}s"}


class SteppedClock:
    """A wall clock that can be set while its processes run: they read its offset from a file each time they ask."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.step_to(0)

    def step_to(self, seconds: float) -> None:
        """From now on it is so far ahead (negative: behind)."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+g}s\n")
        os.replace(new, self._file)  # nobody reads half of it

    @property
    def env(self) -> dict[str, str]:
        """The environment of a process that goes by this clock. Raises servers.Unavailable as wrong_clock does."""
        return _preloaded() | {"FAKETIME_TIMESTAMP_FILE": str(self._file), "FAKETIME_NO_CACHE": "1"}


def _preloaded() -> dict[str, str]:
    installed = sorted(Path("/").glob(LIBRARY))
    found = installed or sorted(servers.unpacked("faketime", ["libfaketime"], LIBRARY).glob(LIBRARY))
    return {"LD_PRELOAD": str(found[0]), "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
