"""Queues as rows of a table and as JSON: what `stats`, `queues`, `status` and `top` show of each queue."""

from __future__ import annotations

from protojobs.cli.showing.snapshot import Load, Snapshot
from protojobs.cli.showing.tables import Cell, Column
from protojobs.cli.showing.text import counted, length
from protojobs.port.records import QueueInfo, Stats

__all__ = ["COUNTS", "LOAD_COLUMNS", "counts", "load_row", "queue_item", "workers_line"]

COUNTS = ("pending", "scheduled", "processing", "completed", "failed", "cancelled", "total")
LOAD_COLUMNS = (
    Column("queue"),
    Column("state", "state"),
    *(Column(name, "number") for name in ("ready", "running", "scheduled", "failed", "oldest", "workers", "slots")),
)


def counts(stats: Stats) -> dict[str, int]:
    """The numbers by name. `pending` includes the scheduled ones; `total` all but those."""
    return {name: getattr(stats, name) for name in COUNTS}


def queue_item(info: QueueInfo) -> dict[str, object]:
    """A queue as it stands in the JSON of `stats` and `queues list`."""
    item: dict[str, object] = {"queue": info.name, "is_paused": info.is_paused}
    return {**item, **counts(info.stats), "is_estimate": info.stats.is_estimate}


def workers_line(seen: Snapshot) -> str:
    """The workers of a store in one line: `3 workers, 12 of 24 slots busy, 1 lapsed`."""
    lapsed = f", {seen.lapsed:,} lapsed" if seen.lapsed else ""
    return f"{counted(len(seen.workers), 'worker')}, {seen.busy:,} of {seen.total.slots:,} slots busy{lapsed}"


def load_row(load: Load, *, is_plain: bool) -> list[Cell]:
    """The cells of a queue, or of all queues together, for `LOAD_COLUMNS`."""
    more = "+" if load.is_estimate and not is_plain else ""
    numbers: list[Cell] = [load.ready, load.running, load.scheduled]
    if more:
        numbers = [f"{number:,}{more}" if isinstance(number, int) and number else number for number in numbers]
    oldest: Cell = load.oldest_s if is_plain or load.oldest_s is None else length(load.oldest_s)
    state = "" if not load.queue else "paused" if load.is_paused else "active"
    return [load.queue or "TOTAL", state, *numbers, load.failed, oldest, load.workers, load.slots]
