"""A wall clock that is wrong, for one process: libfaketime, found here or fetched as a Debian package."""

from __future__ import annotations

from pathlib import Path

import servers

__all__ = ["wrong_clock"]

LIBRARY = "usr/lib/*/faketime/libfaketimeMT.so.1"


def wrong_clock(seconds: float) -> dict[str, str]:
    """The environment of a process whose clock is so far ahead (negative: behind). Its monotonic clock is right.

    Raises servers.Unavailable where the library cannot be had.
    """
    installed = sorted(Path("/").glob(LIBRARY))
    found = installed or sorted(servers.unpacked("faketime", ["libfaketime"], LIBRARY).glob(LIBRARY))
    return {"LD_PRELOAD": str(found[0]), "FAKETIME": f"{seconds:+g}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
