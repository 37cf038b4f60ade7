"""Ids and random numbers: the only module that asks for chance.

It does without `random`, `uuid` and `hashlib`, which together would be a tenth of our import time.
"""

from __future__ import annotations

import os
import threading
import time
import zlib

__all__ = ["fresh_id", "jittered", "stable_fraction", "stable_id"]


_lock = threading.Lock()
_last_tick = 0
_VARIANT = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}  # its upper two bits are 10


def fresh_id() -> str:
    """A new UUIDv7 as text: unique without asking anybody, and each one of a process greater than the one before.

    Ids are made by the client, so that a push whose answer was lost can be sent again under the same id; jobs of one
    moment keep the order in which they were pushed. A tick is 1/4096 ms (RFC 9562, 5.7 and 6.2, methods 3 and 1).
    """
    global _last_tick
    tick = (time.time_ns() << 6) // 15_625  # nanoseconds * 4096 / 1,000,000
    with _lock:
        if tick <= _last_tick:
            tick = _last_tick + 1
        _last_tick = tick
    # By bytes: to format a number costs several times as much.
    moment = ((tick & ~0xFFF) << 4 | 0x7000 | tick & 0xFFF).to_bytes(8, "big").hex()
    dice = os.urandom(8).hex("-", 6)
    return f"{moment[:8]}-{moment[8:12]}-{moment[12:]}-{_VARIANT[dice[0]]}{dice[1:]}"


def jittered(seconds: float, share: float = 0.2) -> float:
    """`seconds`, moved by up to `share` of itself either way."""
    dice = int.from_bytes(os.urandom(4), "big") / 2**32
    return seconds * (1 + share * (2 * dice - 1))


def stable_fraction(*parts: object) -> float:
    """A number in [0, 1) that depends on `parts` alone: a jitter that can be told in advance.

    A CRC of texts that differ in a digit or two differs in a few bits only, the same for all of them; multiplying
    spreads those over the whole range.
    """
    mixed = zlib.crc32("\x1f".join(map(str, parts)).encode())
    for factor in (0x85EBCA6B, 0xC2B2AE35):
        mixed = (mixed ^ mixed >> 15) * factor & 0xFFFFFFFF
    return (mixed ^ mixed >> 16) / 2**32


def stable_id(key: str, microseconds: int) -> str:
    """The id of what happens at a moment under that key: whoever makes it makes the same one.

    Like every job's a UUIDv7, that of the moment; a digest stands where others have chance.
    """
    import hashlib  # for schedules and edited jobs only

    digest = hashlib.blake2b(f"{key}\x1f{microseconds}".encode(), digest_size=10).digest()
    value = (microseconds // 1_000 << 80) | int.from_bytes(digest, "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
