"""Draws what the pages show of the code: the states of a job, and the wings of core with the imports between them.

`python docs/draw.py` writes both into their pages. A test compares, and fails when a page is stale.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

from protojobs.port.lifecycle import diagram

DOCS = Path(__file__).parent
LIFECYCLE = DOCS / "reference" / "lifecycle.md"
ARCHITECTURE = DOCS / "architecture.md"
CORE = DOCS.parent / "core" / "src" / "protojobs"
SQL = DOCS.parent / "drivers" / "sqlalchemy" / "src" / "protojobs_sqlalchemy"

_STATES = re.compile(r"(?<=^```mermaid\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)


def with_states(page: str) -> str:
    """The lifecycle page with today's diagram of the states. Raises ValueError if it has no place for it."""
    text, count = _STATES.subn(lambda _: diagram(), page)
    if count != 1:
        raise ValueError(f"{LIFECYCLE.name} has {count} mermaid blocks, and needs exactly one")
    return text


def with_wings(page: str) -> str:
    """The architecture page with today's picture and tables. Raises ValueError if a place is missing."""
    parts = {"picture": picture(), "wings": table(CORE), "sql": table(SQL)}
    for name, text in parts.items():
        begin, end = f"<!-- drawn: {name} -->\n", "<!-- end -->\n"
        before, there, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        if not (there and closed):
            raise ValueError(f"{ARCHITECTURE.name} has no place for {name}")
        page = before + begin + text + end + after
    return page


def picture() -> str:
    """Core's wings and modules as a Mermaid flowchart, and who uses them. An arrow that others imply is left out."""
    arrows = reduced({**arrows_in_core(), **arrows_into_core()})
    lines = ["```mermaid", "flowchart TD"]
    for name in sorted(arrows):
        part = CORE / name
        shape = "[{}]" if part.is_dir() else "({}.py)" if part.with_suffix(".py").exists() else "[[{}/*]]"
        lines.append(f"    {name}{shape.format(name)}")
    lines += [f"    {name} --> {other}" for name in sorted(arrows) for other in sorted(arrows[name])]
    return "\n".join([*lines, "```"]) + "\n"


def arrows_in_core() -> dict[str, set[str]]:
    """Each wing or module of core -> what it imports of the others, annotations and late imports included."""
    names = {part.stem: part for part in CORE.iterdir() if part.suffix == ".py" or (part / "__init__.py").exists()}
    names = {name: part for name, part in names.items() if not name.startswith("__")}
    return {
        name: {one for file in files_of(part) for one in imports_of(file) if one in names} - {name}
        for name, part in names.items()
    }


def arrows_into_core() -> dict[str, set[str]]:
    """All drivers together, and all contributions -> what they import of core's wings and modules."""
    return {
        folder: {one for file in DOCS.parent.glob(f"{folder}/*/src/**/*.py") for one in imports_of(file)}
        & arrows_in_core().keys()
        for folder in ("drivers", "contrib")
    }


def files_of(part: Path) -> list[Path]:
    """A wing's files, or the file itself."""
    return sorted(part.rglob("*.py")) if part.is_dir() else [part]


def imports_of(file: Path) -> Iterator[str]:
    """What of core a file imports: `queue` for `protojobs.queue.queue`."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            dotted = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in dotted if name.startswith("protojobs."))


def reduced(arrows: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Without the arrows that a longer way implies. Raises graphlib.CycleError if they run in a circle."""
    below: dict[str, set[str]] = {}
    for name in TopologicalSorter(arrows).static_order():
        below[name] = arrows[name].union(*(below[other] for other in arrows[name]))
    return {
        name: {one for one in others if not any(one in below[other] for other in others)}
        for name, others in arrows.items()
    }


def table(package: Path) -> str:
    """Each folder and file of a package, with the first sentence of its docstring."""
    parts = [part for part in package.iterdir() if (part / "__init__.py").exists()]
    files = [part for part in package.glob("*.py") if not part.stem.startswith("__")]
    rows = [(f"{part.name}/", part, sentence(part / "__init__.py")) for part in sorted(parts)]
    rows += [(part.name, part, sentence(part)) for part in sorted(files)]
    link = "../" + package.relative_to(DOCS.parent).as_posix()
    return "| | what it is for |\n|---|---|\n" + "".join(
        f"| [`{name}`]({link}/{part.name}) | {text} |\n" for name, part, text in rows
    )


def sentence(file: Path) -> str:
    """The first sentence of a module's docstring."""
    paragraph = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n\n")[0]
    return re.split(r"(?<=\.) ", " ".join(paragraph.split()))[0].replace("|", "\\|")


if __name__ == "__main__":
    for page, drawn in ((LIFECYCLE, with_states), (ARCHITECTURE, with_wings)):
        page.write_text(drawn(page.read_text(encoding="utf-8")), encoding="utf-8")
