"""Makes a mutant: a driver under the name `protojobs_mutant`, with the changes of one mutant in it.

The true drivers stay what they are; that of the memory is the model which the random walk compares with.
"""

from __future__ import annotations

from pathlib import Path

from mutants.mutant import STORES, Mutant

PACKAGE = "protojobs_mutant"


class Outgrown(Exception):
    """A piece that a mutant replaces is not in the source exactly once."""


def sources(store: str = "memory") -> dict[str, str]:
    """The files of the driver's package, under the mutants' name."""
    package, folder = STORES[store].package, STORES[store].source
    files = sorted(path for suffix in ("py", "lua") for path in folder.rglob(f"*.{suffix}"))
    return {path.relative_to(folder).as_posix(): path.read_text().replace(package, PACKAGE) for path in files}


def mutated(mutant: Mutant) -> dict[str, str]:
    """The files with the changes made; `Outgrown` when one cannot be made."""
    files = sources(mutant.store)
    for file, old, new in mutant.changes:
        found = files[file].count(old)
        if found != 1:
            raise Outgrown(f'mutant "{mutant.name}": {file} has {found} times\n{old}')
        files[file] = files[file].replace(old, new)
    for file in {file for file, _, _ in mutant.changes if file.endswith(".py")}:
        compile(files[file], file, "exec")
    return files


def plant(files: dict[str, str], folder: Path) -> None:
    """Write them as a package."""
    for name, text in files.items():
        (folder / PACKAGE / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / PACKAGE / name).write_text(text)
