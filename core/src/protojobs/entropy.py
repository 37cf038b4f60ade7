"""The only module that rolls dice: ids, and the jitter that keeps workers out of step."""

from __future__ import annotations

import hashlib
import os
import random
import time
import uuid

__all__ = ["fresh_id", "jittered", "stable_fraction"]


def fresh_id() -> str:
    """A new UUIDv7 as text: unique without asking anybody, and ordered by time to the millisecond (RFC 9562, 5.7).

    Ids are made by the client, so that a push whose answer was lost can be sent again under the same id.
    """
    stamp = time.time_ns() // 1_000_000
    value = (stamp & 0xFFFF_FFFF_FFFF) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76  # version
    value = value & ~(0x3 << 62) | 0x2 << 62  # variant
    return str(uuid.UUID(int=value))


def jittered(seconds: float, share: float = 0.2) -> float:
    """`seconds`, moved by up to `share` of itself either way."""
    return seconds * (1 + random.uniform(-share, share))


def stable_fraction(*parts: object) -> float:
    """A number in [0, 1) that depends on `parts` alone: a jitter that can be told in advance."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
