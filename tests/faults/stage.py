"""The place of a fault run: an empty store of one kind, a folder for its journals, dice; and what the run reports."""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import servers
from protojobs import JobQueue, create_driver

from .disk import SmallDisk

__all__ = ["KINDS", "Report", "Stage", "set_up"]

KINDS = ("sqlite", "postgresql", "mariadb", "valkey")


@dataclass
class Stage:
    """What a scenario gets."""

    kind: str  # one of KINDS, or `other` for a URL of somebody's
    url: str
    folder: Path  # of this run alone
    seed: int
    minutes: float  # how long faults go on
    dice: random.Random
    say: Callable[[str], None]
    server: servers.Server | None = None  # ours to hurt; None on SQLite and for somebody's URL
    disk: SmallDisk | None = None  # where SQLite's file is
    is_kept: bool = False  # the folder is to be looked at

    @contextlib.contextmanager
    def queue(self) -> Iterator[JobQueue]:
        """A JobQueue on the store."""
        with JobQueue(create_driver(self.url), {"push_timeout": 30.0}) as queue:
            yield queue


@dataclass
class Report:
    """What a scenario found: broken promises, and figures to print."""

    complaints: list[str] = field(default_factory=list)
    figures: dict[str, object] = field(default_factory=dict)


@contextlib.contextmanager
def set_up(kind: str, *, url: str | None, seed: int, minutes: float, say: Callable[[str], None]) -> Iterator[Stage]:
    """An empty store; everything is removed afterwards, but for the folder of a run that raised or is kept.

    Raises servers.Unavailable when there is no server, or no small disk, to be had.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"protojobs-faults-{kind}-"))
    stage = Stage(kind, url or "", folder, seed, minutes, random.Random(seed), say)
    with contextlib.ExitStack() as stack:
        if url is not None:
            pass
        elif kind == "sqlite":
            stage.disk = stack.enter_context(SmallDisk(folder / "disk"))
            stage.url = f"sqlite:///{stage.disk.path / 'jobs.db'}"
        else:
            stage.server = stack.enter_context(servers.started(kind, is_durable=True))
            stage.url = stage.server.url if kind == "valkey" else servers.create_database(stage.server.url, "faults")
        with stage.queue() as queue:
            queue.driver.setup()
            if queue.stats().total:
                raise servers.Unavailable("the store is not empty: a fault run wants one of its own")
        yield stage
    if not stage.is_kept:
        shutil.rmtree(folder, ignore_errors=True)
