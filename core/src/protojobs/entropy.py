"""The only module that rolls dice: ids, and the jitter that keeps workers out of step.

It does without `random`, `uuid` and `hashlib`, which together would be a tenth of our import time.
"""

from __future__ import annotations

import os
import time
import zlib

__all__ = ["fresh_id", "jittered", "stable_fraction"]


def fresh_id() -> str:
    """A new UUIDv7 as text: unique without asking anybody, and ordered by time to the millisecond (RFC 9562, 5.7).

    Ids are made by the client, so that a push whose answer was lost can be sent again under the same id.
    """
    value = (time.time_ns() // 1_000_000 & 0xFFFF_FFFF_FFFF) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76  # version
    value = value & ~(0x3 << 62) | 0x2 << 62  # variant
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def jittered(seconds: float, share: float = 0.2) -> float:
    """`seconds`, moved by up to `share` of itself either way."""
    dice = int.from_bytes(os.urandom(4), "big") / 2**32
    return seconds * (1 + share * (2 * dice - 1))


def stable_fraction(*parts: object) -> float:
    """A number in [0, 1) that depends on `parts` alone: a jitter that can be told in advance."""
    return zlib.crc32("\x1f".join(map(str, parts)).encode()) / 2**32
