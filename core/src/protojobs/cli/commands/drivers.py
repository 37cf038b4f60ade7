"""`protojobs drivers`: list the installed drivers, without importing them; `new` writes a package for another one."""

from __future__ import annotations

from pathlib import Path

import click

from protojobs.cli.development.driver_package import checked_name, package_files
from protojobs.cli.exits import CommandFailed, Exit
from protojobs.cli.options import StoreCommand, StoreGroup
from protojobs.cli.session import Session
from protojobs.cli.showing.tables import Column
from protojobs.errors import ConfigurationError
from protojobs.port.urls import driver_entry_points

__all__ = ["command"]

_FIELDS = ("scheme", "distribution", "version", "class")


class _Drivers(StoreGroup):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return click.Group.parse_args(self, ctx, args)  # alone it lists


@click.group("drivers", cls=_Drivers, invoke_without_command=True, short_help="List the installed drivers; begin one.")
@click.pass_context
def command(ctx: click.Context) -> None:
    """List the installed drivers (alone, or with `list`), or begin a new one."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_drivers)


@command.command("list", cls=StoreCommand, short_help="List the installed drivers.")
@click.pass_obj
def list_drivers(session: Session) -> None:
    """List the installed drivers by the scheme of the URLs that they answer to.

    Columns: scheme, distribution, version, class.
    """
    rows = [
        (entry.name, entry.dist.name if entry.dist else "", entry.dist.version if entry.dist else "", entry.value)
        for entry in driver_entry_points()
    ]
    items = [dict(zip(_FIELDS, row, strict=True)) for row in rows]
    session.out.items("drivers@1", items, [Column(field) for field in _FIELDS], rows)
    if not rows:
        session.out.note("No driver is installed. Try: pip install 'protojobs[sql]'")


@command.command("new", cls=StoreCommand, short_help="Write a package to begin a driver from.")
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
    target = folder / f"protojobs-{checked_name(name)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        target.mkdir()  # refuses to overwrite
        for path, text in (package := package_files(name)).items():
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
