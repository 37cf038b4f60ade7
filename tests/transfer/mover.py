"""A transfer in a process of its own, to be killed: `mover.py SOURCE DESTINATION BATCH`. Tells each step it begins."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import cast

from protojobs import create_driver
from protojobs.port.driver import Store
from protojobs.transfer import token_for, transfer

STEPS = ("export_jobs", "import_jobs", "drop_exported")


class Telling:
    """A driver that says when one of the steps begins."""

    def __init__(self, url: str) -> None:
        self._driver = create_driver(url)

    def __getattr__(self, name: str) -> object:
        value = getattr(self._driver, name)
        return self._telling(name, value) if name in STEPS else value

    def _telling(self, name: str, verb: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            print(name, flush=True)
            return verb(*args, **kwargs)

        return call


def main(source: str, destination: str, batch: int) -> None:
    """Move, and say whether all has moved."""
    here, there = cast("Store", Telling(source)), cast("Store", Telling(destination))
    report = transfer(here, there, token=token_for(destination), batch=batch)
    print("complete" if report.is_complete else report, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
