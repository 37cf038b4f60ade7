"""The files that `protojobs drivers new NAME` writes: a package with every verb of the port, to be filled in.

Names, signatures and contracts of the verbs are read from `protojobs.port.driver` when the command runs, and so cannot
go stale. Everything else is a template.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from importlib.resources import files
from string import Template

from protojobs.cli.exits import CommandFailed, Exit
from protojobs.errors import OptionInvalid
from protojobs.port import administration, records, schedules
from protojobs.port import driver as port
from protojobs.port.urls import driver_entry_points

__all__ = ["checked_name", "package_files"]

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_NAME_LENGTH_MAX = 40
_OURS = ("sqlalchemy", "examples", "dashboard", "scheduler", "testing")  # protojobs-... is or may become one of ours
_TEMPLATES = files("protojobs") / "testing" / "scaffold"  # data; nothing there is imported
_LINE_MAX = 120
_MODULES = (port, administration, schedules)  # where the protocols of a store stand


def checked_name(name: str) -> str:
    """The name of a new driver. Raises OptionInvalid, or CommandFailed where it is taken."""
    if not _NAME.fullmatch(name) or len(name) > _NAME_LENGTH_MAX:
        raise OptionInvalid(
            f'"{name}" cannot be the scheme of a URL.',
            mend="Use small letters and digits, words joined by a hyphen, such as lmdb or my-store.",
        )
    taken = {entry.name: entry.dist.name if entry.dist else entry.value for entry in driver_entry_points()}
    if name in _OURS or name in taken:
        raise CommandFailed(
            Exit.CONFLICT, f'"{name}" is taken by {taken.get(name, "protojobs itself")}.', mend="Choose another name."
        )
    return name


def package_files(name: str) -> dict[str, str]:
    """The files of the package, by their path in it."""
    package = f"protojobs_{name.replace('-', '_')}"
    values = {
        "name": name,
        "distribution": f"protojobs-{name}",
        "package": package,
        "class_name": "".join(part.capitalize() for part in name.split("-")) + "Driver",
        "version": version("protojobs"),
    }
    verbs = list(_verbs())
    driver = {
        "port_version": str(port.PORT_VERSION),
        "imports": _imports([node for _, node in verbs]),
        "capabilities": "\n".join(_capabilities()),
        "verbs": "\n\n".join(text for text, _ in verbs),
    }
    return {
        "pyproject.toml": _filled("pyproject.toml", values),
        "README.md": _filled("README.md", values),
        f"src/{package}/__init__.py": _filled("__init__.py", values),
        f"src/{package}/driver.py": _filled("driver.py", values | driver),
        f"src/{package}/py.typed": "",
        "tests/test_conformance.py": _filled("test_conformance.py", values),
    }


def _filled(template: str, values: dict[str, str]) -> str:
    return Template((_TEMPLATES / f"{template}.template").read_text(encoding="utf-8")).substitute(values)


def _verbs() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Each verb of `Store` as text, its `...` turned into NotImplementedError; a line before those of each protocol."""
    for protocol in port.Store.__bases__:
        if protocol.__module__ not in {module.__name__ for module in _MODULES}:
            continue
        lines = inspect.getsource(protocol).splitlines()
        (tree,) = ast.parse("\n".join(lines)).body
        assert isinstance(tree, ast.ClassDef)
        for place, node in enumerate(node for node in tree.body if isinstance(node, ast.FunctionDef)):
            contract = "\n".join(lines[node.lineno - 1 : node.body[-1].lineno - 1])
            heading = f"    # {protocol.__name__}\n\n" if place == 0 else ""
            yield f"{heading}{contract}\n        raise NotImplementedError", node


def _capabilities() -> Iterator[str]:
    """Each ability that can be claimed today, with its default and what it means."""
    (tree,) = ast.parse(inspect.getsource(records.Capabilities)).body
    assert isinstance(tree, ast.ClassDef)
    for field, words in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and field.value and isinstance(words, ast.Expr):
            meaning = ast.literal_eval(words.value)
            if not meaning.startswith("Reserved"):
                yield from (f"        # {line.strip()}" for line in meaning.splitlines())
                yield f"        {ast.unparse(field.target)}={ast.unparse(field.value)},"


def _imports(verbs: Iterable[ast.FunctionDef]) -> str:
    """What the signatures need, imported from where the port's modules have it."""
    signatures = [part for verb in verbs for part in (verb.args, verb.returns) if part is not None]
    used = {node.id for part in signatures for node in ast.walk(part) if isinstance(node, ast.Name)} | {"Capabilities"}
    names: dict[str, set[str]] = {}
    for module in _MODULES:
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.ImportFrom) and node.module not in (None, "__future__", "typing"):
                names.setdefault(node.module, set()).update(alias.name for alias in node.names if alias.name in used)
            elif isinstance(node, ast.ClassDef) and node.name in used:
                names.setdefault(module.__name__, set()).add(node.name)
    lines: dict[bool, list[str]] = {False: [], True: []}
    for module_name in sorted(names):
        if names[module_name]:
            lines[module_name.startswith("protojobs")].append(_import(module_name, sorted(names[module_name])))
    return "\n\n".join("\n".join(block) for block in lines.values())


def _import(module: str, names: list[str]) -> str:
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= _LINE_MAX:
        return line
    return f"from {module} import (\n" + "".join(f"    {name},\n" for name in names) + ")"
