"""Values as people type them: `90`, `30s`, `10m`, `1h30m`, `7d` for time; `512M`, `1.5G` for memory; JSON.

Each function is the `type=` of an option. Raises click.BadParameter, to which click adds the option's name.
"""

from __future__ import annotations

import re
import sys

import click
import msgspec

__all__ = ["duration", "json_value", "size"]

_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|min|s|m|h|d|w)")
_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_POWER = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_SECONDS_MAX = 1e10  # beyond any calendar


def duration(text: str) -> float:
    """Seconds, from a number or numbers with units."""
    try:
        seconds = float(text)
    except ValueError:
        if not text.strip() or _PART.sub("", text).strip():
            raise click.BadParameter(
                f"{text!r} is no length of time. Write it like 30s, 10m, 2h, 7d or 1h30m."
            ) from None
        seconds = sum(float(number) * _UNIT_S[unit] for number, unit in _PART.findall(text))
    if not 0 <= seconds < _SECONDS_MAX:  # nan falls out here too
        raise click.BadParameter(f"{text!r} is negative or endless. Write it like 30s, 10m, 2h or 7d.")
    return seconds


def size(text: str) -> int:
    """Bytes, from a number with K, M, G or T (powers of 1024), or without."""
    found = _BYTES.fullmatch(text.strip())
    if found is None:
        raise click.BadParameter(f"{text!r} is no amount of memory. Write it like 512M or 1.5G.")
    return int(float(found[1]) * 1024 ** _POWER[found[2].upper()])


def json_value(text: str) -> object:
    """A JSON value; `-` reads it from stdin."""
    try:
        return msgspec.json.decode(sys.stdin.read() if text == "-" else text)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise click.BadParameter(
            f'This is not JSON: {error}. Quote it for your shell: \'{{"email": "jo@example.com"}}\''
        ) from None
