"""`protojobs workers`: list the workers that the store knows."""

from __future__ import annotations

import click

from protojobs.cli.options import StoreCommand
from protojobs.cli.session import Session
from protojobs.cli.showing.output import plain_values
from protojobs.cli.showing.tables import Cell, Column

__all__ = ["command"]

_COLUMNS = (
    Column("id", "id"),
    Column("host"),
    Column("pid", "text"),
    Column("state", "state"),
    Column("running", "number"),
    Column("slots", "number"),
    Column("started", "time"),
    Column("heard of", "time"),
    Column("queues"),
)


@click.command("workers", cls=StoreCommand, short_help="List the workers that the store knows.")
@click.pass_obj
def command(session: Session) -> None:
    """List the workers that the store knows, oldest first.

    Columns: id, host, pid, state, jobs running, slots, started, last heard of, queues. `lapsed` means that a worker
    has not been heard of for its lease: it is dead or cut off, and the others take back its jobs.
    """
    store = session.store()
    now = store.now()
    workers = [(worker, "alive" if worker.lease_ends_at > now else "lapsed") for worker in store.workers()]
    rows: list[list[Cell]] = [
        [w.id, w.host, str(w.pid), state, w.processing, w.concurrency, w.started_at, w.heartbeat_at, ",".join(w.queues)]
        for w, state in workers
    ]
    items = [{**_values(worker), "state": state} for worker, state in workers]
    session.out.items("workers@1", items, _COLUMNS, rows, now=lambda: now)
    if not workers:
        session.out.note("No worker is running.")


def _values(worker: object) -> dict[str, object]:
    values = plain_values(worker)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]
