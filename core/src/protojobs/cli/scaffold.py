"""`protojobs drivers new NAME`: a package to begin a driver from, with the contract as its docstrings.

What can go stale is not in the templates: the verbs, their signatures and contracts are read from `protocols.py`.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from string import Template

import click

from protojobs.cli.exits import CommandFailed, Exit
from protojobs.cli.options import StoreCommand
from protojobs.cli.session import Session
from protojobs.cli.showing.output import Column
from protojobs.errors import ConfigurationError, OptionInvalid
from protojobs.port import driver as protocols
from protojobs.port import records
from protojobs.port.urls import driver_entry_points

__all__ = ["new_driver", "written"]

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_NAME_LENGTH_MAX = 40
_OURS = ("sqlalchemy", "examples", "dashboard", "scheduler", "testing")  # protojobs-... is or may become one of ours
_TEMPLATES = files("protojobs") / "testing" / "scaffold"  # data; nothing there is imported
_LINE_MAX = 120


@click.command("new", cls=StoreCommand, short_help="Write a package to begin a driver from.")
@click.argument("name")
@click.option(
    "--folder",
    default=".",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where to put it.  [default: here]",
)
@click.pass_obj
def new_driver(session: Session, name: str, folder: Path) -> None:
    """Write a package to begin a driver from: protojobs-NAME.

    NAME is the scheme of its URLs, NAME://... Every verb is there, with its contract, and raises NotImplementedError;
    the conformance kit is ready to run. Columns: file.
    """
    target = folder / f"protojobs-{_checked(name)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        target.mkdir()  # refuses to overwrite
        for path, text in (package := written(name)).items():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_text(text, encoding="utf-8")
    except FileExistsError:
        raise CommandFailed(
            Exit.CONFLICT, f"{target} is there already.", mend="Remove it, or give another --folder."
        ) from None
    except OSError as error:
        raise ConfigurationError(f"{target} cannot be written. {error.strerror}.", mend="Give --folder.") from error
    paths = [str(target / path) for path in package]
    session.out.items(
        "drivers.new@1", [{"file": path} for path in paths], [Column("file")], [(path,) for path in paths]
    )
    session.out.note(f"Next: cd {target} && pip install -e '.[testing]' && pytest")
    session.out.note("README.md says where to begin.")


def written(name: str) -> dict[str, str]:
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
        "port_version": str(protocols.PORT_VERSION),
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


def _checked(name: str) -> str:
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


def _filled(template: str, values: dict[str, str]) -> str:
    return Template((_TEMPLATES / f"{template}.template").read_text(encoding="utf-8")).substitute(values)


# ------------------------------------------------------------------------------------------------------- introspection


def _verbs() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Each verb of `Store` as text, its `...` turned into NotImplementedError; a line before those of each protocol."""
    for protocol in protocols.Store.__bases__:
        if protocol.__module__ != protocols.__name__:
            continue
        lines = inspect.getsource(protocol).splitlines()
        (tree,) = ast.parse("\n".join(lines)).body
        assert isinstance(tree, ast.ClassDef)
        rule = f"    # {'-' * (_LINE_MAX - len(protocol.__name__) - 7)} {protocol.__name__}"
        for place, node in enumerate(node for node in tree.body if isinstance(node, ast.FunctionDef)):
            contract = "\n".join(lines[node.lineno - 1 : node.body[-1].lineno - 1])
            heading = f"{rule}\n\n" if place == 0 else ""
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
    """What the signatures need, imported from where protocols.py has it, in its order."""
    signatures = [part for verb in verbs for part in (verb.args, verb.returns) if part is not None]
    used = {node.id for part in signatures for node in ast.walk(part) if isinstance(node, ast.Name)} | {"Capabilities"}
    lines: dict[bool, list[str]] = {False: [], True: []}
    for node in ast.parse(inspect.getsource(protocols)).body:
        if isinstance(node, ast.ImportFrom) and node.module not in (None, "__future__", "typing"):
            if names := [alias.name for alias in node.names if alias.name in used]:
                lines[node.module.startswith("protojobs")].append(_import(node.module, names))
    return "\n\n".join("\n".join(block) for block in lines.values())


def _import(module: str, names: list[str]) -> str:
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= _LINE_MAX:
        return line
    return f"from {module} import (\n" + "".join(f"    {name},\n" for name in names) + ")"
