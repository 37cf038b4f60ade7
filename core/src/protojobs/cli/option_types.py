"""The types of option values: time (`90`, `30s`, `1h30m`, `7d`), memory (`512M`, `1.5G`) and JSON.

Each function is the `type=` of an option. Raises click.BadParameter, to which click adds the option's name.
"""

from __future__ import annotations

import re
import sys

import click
import msgspec

from protojobs.errors import OptionInvalid, shown
from protojobs.names import parse_seconds

__all__ = ["duration", "json_value", "size"]

_BYTES = re.compile(r"(\d{1,18}(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_POWER = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def duration(text: str) -> float:
    """Seconds, from a number or numbers with units."""
    try:
        return parse_seconds("The value", text)
    except OptionInvalid as error:
        raise click.BadParameter(str(error)) from None


def size(text: str) -> int:
    """Bytes, from a number with K, M, G or T (powers of 1024), or without."""
    match = _BYTES.fullmatch(text.strip())
    if match is None:
        raise click.BadParameter(f"{shown(text)} is no amount of memory. Write it like 512M or 1.5G.")
    return int(float(match[1]) * 1024 ** _POWER[match[2].upper()])


def json_value(text: str) -> object:
    """A JSON value; `-` reads it from stdin."""
    try:
        return msgspec.json.decode(sys.stdin.read() if text == "-" else text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise click.BadParameter(
            f'This is not JSON: {error}. Quote it for your shell: \'{{"email": "jo@example.com"}}\''
        ) from None
