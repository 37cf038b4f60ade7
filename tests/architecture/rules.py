"""The rules that ruff and import-linter cannot say, each a function from a source text to its breaches.

They read the syntax tree and import nothing, so a module with a mistake elsewhere is checked all the same.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# What a driver may use of core: the port and the values that cross it. Types at the package root are public for all.
DRIVER_MAY_USE = frozenset({"port", "errors", "clock", "entropy", "stopping"})

# What is core's own business: a contribution uses everything else that has no underscore.
CONTRIBUTION_MAY_NOT_USE = frozenset({"cli", "testing"})

CLOCK = {
    *(f"time.{f}{ns}" for f in ("time", "monotonic", "perf_counter", "clock_gettime") for ns in ("", "_ns")),
    *(f"time.{f}" for f in ("localtime", "gmtime", "ctime", "asctime", "strftime")),
    *(f"datetime.datetime.{f}" for f in ("now", "utcnow", "today")),
    "datetime.date.today",
}
SLEEP = {"time.sleep"}
CHANCE = {"random", "secrets", "os.urandom", "os.getrandom", *(f"uuid.uuid{n}" for n in (1, 4, 6, 7, 8))}


def sources(*folders: str) -> list[Path]:
    """Every module below these folders of the checkout."""
    return sorted(file for folder in folders for start in ROOT.glob(folder) for file in start.rglob("*.py"))


def shown(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything imported absolutely; `from a import b` counts as `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def breaches_of_port(source: str, allowed: Collection[str], modules: Collection[str]) -> list[str]:
    """Imports from core beside the package root and the allowed modules.

    `modules` are the names of core's modules: `from protojobs import worker` imports one, and
    `from protojobs import Worker` takes a public name of the root.
    """
    found = []
    for line, name in imported(ast.parse(source)):
        package, _, inside = name.partition(".")
        first = inside.partition(".")[0]
        if package != "protojobs" or not first:
            continue
        if first.startswith("_") or (first in modules and first not in allowed):
            found.append(f"line {line}: {name} is not part of what a driver may use")
        elif any(part.startswith("_") for part in inside.split(".")):
            found.append(f"line {line}: {name} is private")
    return found


def breaches_of_public_face(source: str) -> list[str]:
    """Imports of a contribution that a stranger's could not rely on."""
    found = []
    for line, name in imported(ast.parse(source)):
        package, _, inside = name.partition(".")
        if package != "protojobs":
            continue
        if any(part.startswith("_") for part in inside.split(".")):
            found.append(f"line {line}: {name} is private")
        elif inside.partition(".")[0] in CONTRIBUTION_MAY_NOT_USE:
            found.append(f"line {line}: {name} is core's own")
    return found


def imports_inside_functions(source: str) -> list[tuple[int, str]]:
    """Line and name of every import that is not at the top of its module."""
    found: set[tuple[int, str]] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Import):
                    found.update((inner.lineno, alias.name) for alias in inner.names)
                elif isinstance(inner, ast.ImportFrom):
                    found.add((inner.lineno, "." * inner.level + (inner.module or "")))
    return sorted(found)


def breaches_of_determinism(source: str, banned: Collection[str]) -> list[str]:
    """Uses of what only clock.py and entropy.py may use, under whatever name it was imported."""
    tree = ast.parse(source)
    names = local_names(tree)
    found = []
    for line, name in imported(tree):
        if is_banned(name, banned):
            found.append(f"line {line}: imports {name}")
        elif name.endswith(".*") and any(b.startswith(name[:-1]) for b in banned):
            found.append(f"line {line}: imports {name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (name := dotted(node, names)) and is_banned(name, banned):
            found.append(f"line {node.lineno}: uses {name}")
    return sorted(set(found))


def local_names(tree: ast.AST) -> dict[str, str]:
    """What each imported name stands for: `import time as t` gives t -> time."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.partition(".")[0]
                names[bound] = alias.name if alias.asname else bound
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def dotted(node: ast.expr, names: dict[str, str]) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not (isinstance(node, ast.Name) and node.id in names):
        return ""
    return ".".join([names[node.id], *reversed(parts)])


def is_banned(name: str, banned: Collection[str]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in banned)


def docstring_of(source: str) -> str:
    return ast.get_docstring(ast.parse(source)) or ""
