"""`protojobs plugins`: list the installed plugins, the hooks that they implement, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint

import click
import msgspec

from protojobs.cli.exits import Exit
from protojobs.cli.options import StoreCommand
from protojobs.cli.session import Session
from protojobs.cli.showing.tables import Cell, Column
from protojobs.hooks.installed_plugins import made_plugin, plugins_wanted
from protojobs.hooks.specs import hooks_of

__all__ = ["command"]

_COLUMNS = (
    Column("name"),
    Column("distribution"),
    Column("version"),
    Column("state", "state"),
    Column("hooks"),
    Column("reason"),
)
_PREFIX = "protojobs_"


class _Plugin(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    distribution: str
    version: str
    state: str = "loaded"
    hooks: tuple[str, ...] = ()
    reason: str = ""


@click.command("plugins", cls=StoreCommand, short_help="List the installed plugins and their hooks.")
@click.pass_obj
def command(session: Session) -> int:
    """List the plugins: those that are installed, and those of the setting `plugins`. Needs no store.

    Columns: name, distribution, version, state (loaded; idle: nothing asks for it; disabled by the setting
    plugins_disabled; or broken), the hooks that it implements (without their common `protojobs_`), and the reason where
    it is broken. Exit code 1 where one is broken that the setting plugins names: nothing is pushed or run without it.
    """
    settings = session.settings()
    results = list(_plugins(settings.plugins, settings.plugins_disabled))
    plugins = [plugin for plugin, _ in results]
    rows: list[list[Cell]] = [
        [p.name, p.distribution, p.version, p.state, " ".join(h.removeprefix(_PREFIX) for h in p.hooks), p.reason]
        for p in plugins
    ]
    session.out.items("plugins@1", plugins, _COLUMNS, rows)
    if not plugins:
        session.out.note("No plugin is installed.")
    if any(plugin.state == "idle" for plugin in plugins):
        session.out.note("idle: installed, and not switched on. Its documentation names the setting that does.")
    missing = [plugin.name for plugin, is_wanted in results if is_wanted and plugin.state == "broken"]
    if missing:
        session.out.note(f"Nothing is pushed or run without {', '.join(missing)}: the setting plugins names it.")
    return Exit.BAD if missing else Exit.OK


def _plugins(names: tuple[str, ...], disabled: tuple[str, ...]) -> Iterator[tuple[_Plugin, bool]]:
    for entry, is_wanted in plugins_wanted(names):
        yield _examined(entry, is_disabled=entry.name in disabled), is_wanted


def _examined(entry: EntryPoint, *, is_disabled: bool) -> _Plugin:
    source = (entry.dist.name, entry.dist.version) if entry.dist else ("", "")
    plugin = _Plugin(name=entry.name, distribution=source[0], version=source[1])
    if is_disabled:
        return msgspec.structs.replace(plugin, state="disabled")
    try:
        made = made_plugin(entry)
        if made is None:
            return msgspec.structs.replace(plugin, state="idle")
        hooks = hooks_of(entry.name, made)
    except Exception as error:  # noqa: BLE001 (somebody else's package: what is wrong with it is shown)
        return msgspec.structs.replace(plugin, state="broken", reason=f"{type(error).__name__}: {error}")
    return msgspec.structs.replace(plugin, hooks=tuple(hooks))
