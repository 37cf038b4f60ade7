"""Draws the state diagram of docs/reference/lifecycle.md from the table in `protojobs.port.lifecycle`.

`python docs/draw.py` writes it into the page. A test compares, and fails when the page is stale.
"""

from __future__ import annotations

import re
from pathlib import Path

from protojobs.port.lifecycle import diagram

PAGE = Path(__file__).parent / "reference" / "lifecycle.md"
_DRAWN = re.compile(r"(?<=^```mermaid\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)


def drawn(page: str) -> str:
    """The page's text with today's diagram in it. Raises ValueError for a page without a place for it."""
    text, count = _DRAWN.subn(lambda _: diagram(), page)
    if count != 1:
        raise ValueError(f"{PAGE.name} has {count} mermaid blocks, and needs exactly one")
    return text


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
