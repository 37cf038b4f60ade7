"""Values as text for people: ages, durations, counts, JSON; with control characters escaped, for text from a store
must not steer the terminal.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

import msgspec

__all__ = ["age", "counted", "escaped", "escaped_lines", "iso", "length", "pretty_json"]

# C0 and C1 controls, line separators, marks that turn the writing direction, halves of surrogate pairs.
_HOSTILE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
_SHORT = {"\n": r"\n", "\t": r"\t", "\r": r"\r"}
_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "m"))


def escaped(text: str) -> str:
    """`text` on one line, with every control character written out: ESC becomes `\\x1b`."""
    return _HOSTILE.sub(_written_out, text)


def escaped_lines(text: str) -> list[str]:
    """The lines of `text`, each escaped; tabs become spaces."""
    return [escaped(line) for line in text.replace("\r\n", "\n").expandtabs(4).split("\n")]


def counted(number: int, noun: str) -> str:
    """`1 job`, `2,000 jobs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC, to the microsecond: `2026-11-24T13:40:35.123456Z`."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def length(seconds: float) -> str:
    """A length of time, to read at a glance: `41s`, `3m`, `2h`, `5d`; in the larger unit from two of it on."""
    for size, unit in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def age(moment: datetime, now: datetime) -> str:
    """`3m ago` or `in 2h`."""
    seconds = (now - moment).total_seconds()
    if abs(seconds) < 1:
        return "now"
    return f"{length(seconds)} ago" if seconds > 0 else f"in {length(-seconds)}"


def pretty_json(text: str) -> str:
    """JSON with indentation; text that is no JSON stays as it is."""
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return text
    return msgspec.json.format(text, indent=2)


def _written_out(match: re.Match[str]) -> str:
    character = match.group()
    code = ord(character)
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
