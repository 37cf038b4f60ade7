"""The pages that users read: where they are, and the fenced blocks, headings and links in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^`]*)$")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (?P<text>.+)$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block. `info` is all that stands behind the fence; `line` that of the first line of its text."""

    language: str
    info: str
    text: str
    line: int

    @property
    def title(self) -> str:
        """The file that the block is shown as, from `title="..."`."""
        found = re.search(r'title="([^"]+)"', self.info)
        return found[1] if found else ""

    @property
    def is_output(self) -> bool:
        """Whether it shows what the Python block before it prints."""
        return self.info.split() == ["text", "output"]


def all_pages() -> list[Path]:
    """Every page, README first."""
    own = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    return [*own, *sorted(DOCS.rglob("*.md"))]


def name_of(page: Path) -> str:
    """How a test calls it."""
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> list[Block]:
    """The page's fenced blocks in order. Fails on a fence that is never closed."""
    found: list[Block] = []
    opened: re.Match[str] | None = None
    lines: list[str] = []
    start = 0
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = _FENCE.match(line)
        if opened is None:
            if fence is not None:
                opened, lines, start = fence, [], number + 1
        elif fence is not None and not fence["info"].strip():
            info = opened["info"].strip()
            text = "".join(f"{one.removeprefix(opened['indent'])}\n" for one in lines)
            found.append(Block(info.split()[0] if info else "", info, text, start))
            opened = None
        else:
            lines.append(line)
    assert opened is None, f"{name_of(page)}, line {start - 1}: this fence is not closed"
    return found


def prose_of(page: Path) -> str:
    """The page's text without its fenced blocks."""
    kept: list[str] = []
    inside = False
    for line in page.read_text(encoding="utf-8").splitlines():
        if _FENCE.match(line):
            inside = not inside
        elif not inside:
            kept.append(line)
    return "\n".join(kept)


def links_of(page: Path) -> list[str]:
    """Where the page's links lead, as written."""
    return [found["target"] for found in _LINK.finditer(re.sub(r"`[^`\n]*`", "", prose_of(page)))]


def anchors_of(page: Path) -> set[str]:
    """The names of the page's headings, as they stand behind `#` in a link."""
    anchors: set[str] = set()
    for found in _HEADING.finditer(prose_of(page)):
        plain = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", found["text"]).lower())
        anchors.add(plain.strip().replace(" ", "-"))
    return anchors


def table_after(page: Path, heading: str) -> list[list[str]]:
    """The cells of the first table under that heading, without its head."""
    _, there, rest = page.read_text(encoding="utf-8").partition(f"# {heading}\n")
    assert there, f'{name_of(page)} has no heading "{heading}"'
    rows: list[list[str]] = []
    for line in rest.splitlines():
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
            rows.append([cell.strip().replace("\\|", "|") for cell in cells])
        elif rows:
            break
    return rows[2:]
