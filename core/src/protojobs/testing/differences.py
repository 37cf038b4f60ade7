"""The difference of two values, in lines for people."""

from __future__ import annotations

import difflib
from pprint import pformat

__all__ = ["difference", "indented"]

_LINES_MAX = 40  # of one difference; what is longer is cut in the middle


def difference(wanted: object, found: object) -> list[str]:
    """Lines: `- ` for what only `wanted` has, `+ ` for what only `found` has, and what both have around them."""
    one, other = (pformat(value, width=90, sort_dicts=True).splitlines() for value in (wanted, found))
    if one == other:  # unequal, and yet written alike: their types tell, or nothing does
        return [f"- {type(wanted).__name__}: {wanted!r}", f"+ {type(found).__name__}: {found!r}"]
    lines = [line.rstrip("\n") for line in difflib.ndiff(one, other) if not line.startswith("?")]
    if len(lines) > _LINES_MAX:
        half = _LINES_MAX // 2
        lines = [*lines[:half], f"  ... {len(lines) - 2 * half} lines cut ...", *lines[-half:]]
    return lines


def indented(lines: list[str], by: int = 4) -> str:
    """The lines as one text, moved to the right."""
    return "\n".join(f"{' ' * by}{line}".rstrip() for line in lines)
