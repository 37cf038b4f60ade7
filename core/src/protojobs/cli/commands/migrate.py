"""`protojobs migrate`: create, upgrade or remove the tables of a store."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import click

from protojobs.cli.acting.confirmation import YES, confirm
from protojobs.cli.exits import CommandFailed, Exit
from protojobs.cli.options import StoreCommand
from protojobs.cli.session import Session
from protojobs.cli.showing.tables import Column
from protojobs.cli.showing.text import counted
from protojobs.entropy import fresh_id
from protojobs.errors import NotSupported, SchemaOutdated
from protojobs.port.driver import Store

__all__ = ["Migrates", "command"]


@runtime_checkable
class Migrates(Protocol):
    """A driver whose storage has versions. Others have `setup` and `teardown` only."""

    def migrate(self, *, down: bool = False, to: str | None = None) -> list[str]:
        """Bring the storage to this release's version or to that of `to`, or remove it; returns the revisions run.

        Raises ConfigurationError where a step back to `to` would lose something; nothing is done then.
        """
        ...

    def pending_migrations(self) -> list[str]:
        """The revisions that `migrate` would run; none where this release can work on the storage. Changes nothing.

        Raises SchemaOutdated where there is no storage, or one of a newer version that this release cannot work on.
        """
        ...

    def migration_sql(self, *, down: bool = False) -> str:
        """The statements that `migrate` would run on an empty (or, for `down`, a full) database."""
        ...


@click.command("migrate", cls=StoreCommand, short_help="Create or upgrade the store's tables.")
@click.option(
    "--check",
    is_flag=True,
    help="Change nothing; exit with 0 if this release can work on the tables, with 8 if not. Lists what is to be run.",
)
@click.option("--to", metavar="REVISION", help="Another version of the tables; back only where that loses nothing.")
@click.option("--down", is_flag=True, help="Remove the tables and every job in them; counts and asks first.")
@click.option("--sql", is_flag=True, help="Print the statements instead of running them.")
@YES
@click.pass_obj
def command(session: Session, check: bool, to: str | None, down: bool, sql: bool, yes: bool) -> None:
    """Bring the store's tables to the version of this release, and print the revisions that were run.

    Safe to run again, and by several processes at once. A store without tables is only set up.
    """
    if (check and (to or down or sql)) or (to and (down or sql)):
        raise click.UsageError("--check and --to stand alone: each does something else.", click.get_current_context())
    jobs = session.queue()
    driver, store_name = jobs.driver, session.store_name(jobs)
    if check:
        _check(session, driver, store_name)
    elif sql:
        click.echo(_migrating(driver, "SQL to print").migration_sql(down=down).rstrip("\n"))
    elif to:
        _move(session, _migrating(driver, "versions to go to"), store_name, to)
    elif down:
        _remove(session, driver, store_name, yes)
    elif isinstance(driver, Migrates):
        revisions = driver.migrate()
        _print(session, revisions, "up")
        session.out.note(f"{store_name}: {'ready' if revisions else 'up to date already'}.")
    else:
        driver.setup()
        _print(session, [], "up")
        session.out.note(f"{store_name}: ready.")


def _migrating(driver: Store, what: str) -> Migrates:
    if not isinstance(driver, Migrates):
        raise NotSupported(f"{type(driver).__name__} has no {what}.", mend="protojobs migrate")
    return driver


def _check(session: Session, driver: Store, store_name: str) -> None:
    pending: list[str] = []
    if isinstance(driver, Migrates):
        pending = driver.pending_migrations()
    else:
        driver.get([fresh_id()])  # any verb raises SchemaOutdated
    items = [{"revision": revision} for revision in pending]
    session.out.items("migrate.check@1", items, (Column("revision"),), [(revision,) for revision in pending])
    if pending:
        raise CommandFailed(
            Exit.NOT_MIGRATED,
            f"{store_name} is behind this release by {counted(len(pending), 'revision')}: {', '.join(pending)}.",
            mend=session.to_type("protojobs migrate"),
        )
    session.out.note(f"{store_name}: this release can work on it.")


def _move(session: Session, driver: Migrates, store_name: str, to: str) -> None:
    revisions = driver.migrate(to=to)
    # A way up ends with the revision that was named; a step back undoes a revision, which is one above it.
    _print(session, revisions, "up" if to in revisions else "down")
    session.out.note(f"{store_name}: of version {to}{'' if revisions else ' already'}.")


def _remove(session: Session, driver: Store, store_name: str, yes: bool) -> None:
    count = _count(driver)
    confirm(
        session.out,
        f"Remove the tables of protojobs from {store_name}, with {counted(count, 'job')} in them.",
        is_agreed=yes,
    )
    revisions: list[str] = []
    if isinstance(driver, Migrates):
        revisions = driver.migrate(down=True)
    else:
        driver.teardown()
    _print(session, revisions, "down")
    session.out.note(f"{store_name}: removed.")


def _print(session: Session, revisions: list[str], direction: str) -> None:
    items = [{"revision": revision, "direction": direction} for revision in revisions]
    session.out.items("migrate@1", items, (Column("revision"), Column("")), [(r, direction) for r in revisions])


def _count(driver: Store) -> int:
    try:
        return driver.stats().total
    except SchemaOutdated:
        return 0
