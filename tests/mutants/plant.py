"""Makes a mutant: the memory driver under the name `protojobs_mutant`, with the changes of one mutant in it.

The true `protojobs_memory` stays what it is, so that it can be the model which the random walk compares with.
"""

from __future__ import annotations

from pathlib import Path

from mutants.planted import Mutant

ROOT = Path(__file__).resolve().parents[2]
DRIVER = ROOT / "drivers/memory/src/protojobs_memory"
PACKAGE = "protojobs_mutant"


class Outgrown(Exception):
    """A piece that a mutant replaces is not in the source exactly once."""


def sources() -> dict[str, str]:
    """The driver's modules, under the mutants' name."""
    return {file.name: file.read_text().replace("protojobs_memory", PACKAGE) for file in sorted(DRIVER.glob("*.py"))}


def mutated(mutant: Mutant) -> dict[str, str]:
    """The modules with the changes made; `Outgrown` when one cannot be made."""
    modules = sources()
    for file, old, new in mutant.changes:
        found = modules[file].count(old)
        if found != 1:
            raise Outgrown(f'mutant "{mutant.name}": {file} has {found} times\n{old}')
        modules[file] = modules[file].replace(old, new)
        compile(modules[file], file, "exec")
    return modules


def plant(modules: dict[str, str], folder: Path) -> None:
    """Write them as a package."""
    (folder / PACKAGE).mkdir()
    for name, text in modules.items():
        (folder / PACKAGE / name).write_text(text)
