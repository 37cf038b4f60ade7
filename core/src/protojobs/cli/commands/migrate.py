"""`protojobs migrate`: create, upgrade or remove the tables of a store."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import click

from protojobs.cli.acting.confirmation import YES, confirm
from protojobs.cli.options import StoreCommand
from protojobs.cli.session import Session
from protojobs.cli.showing.tables import Column
from protojobs.cli.showing.text import counted
from protojobs.errors import NotSupported, SchemaOutdated
from protojobs.port.driver import Store

__all__ = ["Migrates", "command"]


@runtime_checkable
class Migrates(Protocol):
    """A driver whose storage has versions. Others have `setup` and `teardown` only."""

    def migrate(self, *, down: bool = False) -> list[str]:
        """Bring the storage to this release's version, or remove it; returns the revisions that were run."""
        ...

    def migration_sql(self, *, down: bool = False) -> str:
        """The statements that `migrate` would run on an empty (or, for `down`, a full) database."""
        ...


@click.command("migrate", cls=StoreCommand, short_help="Create or upgrade the store's tables.")
@click.option("--down", is_flag=True, help="Remove the tables and every job in them; counts and asks first.")
@click.option("--sql", is_flag=True, help="Print the statements instead of running them.")
@YES
@click.pass_obj
def command(session: Session, down: bool, sql: bool, yes: bool) -> None:
    """Bring the store's tables to the version of this release, and print the revisions that were run.

    Safe to run again, and by several processes at once. A store without tables is only set up.
    """
    jobs = session.queue()
    driver, store_name = jobs.driver, session.store_name(jobs)
    if sql:
        if not isinstance(driver, Migrates):
            raise NotSupported(f"{type(driver).__name__} has no SQL to print.", mend="protojobs migrate")
        click.echo(driver.migration_sql(down=down).rstrip("\n"))
        return
    if down:
        count = _count(driver)
        confirm(
            session.out,
            f"Remove the tables of protojobs from {store_name}, with {counted(count, 'job')} in them.",
            is_agreed=yes,
        )
    revisions = driver.migrate(down=down) if isinstance(driver, Migrates) else _plainly(driver, down=down)
    direction = "down" if down else "up"
    items = [{"revision": revision, "direction": direction} for revision in revisions]
    session.out.items("migrate@1", items, (Column("revision"), Column("")), [(r, direction) for r in revisions])
    if down:
        session.out.note(f"{store_name}: removed.")
    elif revisions or not isinstance(driver, Migrates):
        session.out.note(f"{store_name}: ready.")
    else:
        session.out.note(f"{store_name}: up to date already.")


def _plainly(driver: Store, *, down: bool) -> list[str]:
    if down:
        driver.teardown()
    else:
        driver.setup()
    return []


def _count(driver: Store) -> int:
    try:
        return driver.stats().total
    except SchemaOutdated:
        return 0
