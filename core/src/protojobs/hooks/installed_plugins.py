"""From the names of plugins to Hooks: each is imported and made on first need.

An installed plugin may have come with anything, so one that cannot be used is left out with a line in the log. One that
the setting `plugins` names is wanted: it may encrypt, so nothing is pushed or run without it; docs/decisions/0026.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from protojobs.clock import SYSTEM_CLOCK, Clock
from protojobs.errors import ProtojobsError
from protojobs.hooks.hooks import Hooks
from protojobs.hooks.specs import hooks_of
from protojobs.port.installed_drivers import plugin_entry_points, plugins_named

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["load_hooks", "made_plugin", "plugins_wanted"]

_log = logging.getLogger("protojobs.plugins")


def load_hooks(names: Sequence[str], disabled: Sequence[str], *, clock: Clock = SYSTEM_CLOCK) -> Hooks:
    """The hooks of the installed plugins and of those of `names`, without the disabled ones."""
    plugins: list[tuple[str, object]] = []
    left_out: dict[str, str] = {}
    missing: dict[str, str] = {}
    for entry, is_wanted in plugins_wanted(names):
        if entry.name in disabled:
            continue
        try:
            if (plugin := made_plugin(entry)) is None:
                continue
            if is_wanted:
                hooks_of(entry.name, plugin)
            plugins.append((entry.name, plugin))
        except Exception as error:  # noqa: BLE001  (somebody else's package must not stop the program that has it installed)
            why = str(error) if isinstance(error, ProtojobsError) else f"{type(error).__name__}: {error}"
            (missing if is_wanted else left_out)[entry.name] = why
            if not is_wanted:
                _log.error("plugin %s is left out, it cannot be loaded: %s", entry.name, why)
    return Hooks(plugins, clock=clock, left_out=left_out, missing=missing)


def plugins_wanted(names: Sequence[str]) -> list[tuple[EntryPoint, bool]]:
    """Every plugin, and whether the setting `plugins` names it; an installed one that it names stands there once."""
    named = plugins_named(names)
    others = [entry for entry in plugin_entry_points() if entry not in named]
    return [(entry, False) for entry in others] + [(entry, True) for entry in named]


def made_plugin(entry: EntryPoint) -> object:
    """What the entry point names. A class or a function is called for the plugin; None: nobody has asked for it."""
    plugin: object = entry.load()
    if isinstance(plugin, type) or inspect.isfunction(plugin):
        return cast("Callable[[], object]", plugin)()
    return plugin
