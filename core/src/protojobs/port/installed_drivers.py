"""Makes the driver for a URL, and finds the installed plugins. Nothing is imported before it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from protojobs.errors import ConfigurationError, DriverNotFound, ProtojobsError, did_you_mean, one_line
from protojobs.port.driver import PORT_VERSION, Store
from protojobs.port.urls import ENCODE, check_url, driver_entry_points, masked, scrubbed

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = [
    "create_driver",
    "plugin_entry_points",
    "plugins_named",
]

PLUGINS = "protojobs.plugins"
_EXTRAS = {
    "sqlite": "sql",
    "postgresql": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
    "redis": "redis",
    "rediss": "redis",
    "valkey": "redis",
    "valkeys": "redis",
    "memory": "memory",
}
_URL_EXAMPLE = 'Write it like "sqlite:///jobs.db".'


def plugin_entry_points() -> list[EntryPoint]:
    """The installed plugins, by name."""
    from importlib.metadata import entry_points  # a quarter of our import time, and only needed here

    return sorted(entry_points(group=PLUGINS), key=lambda entry: entry.name)


def plugins_named(names: Sequence[str]) -> list[EntryPoint]:
    """The plugins that the setting `plugins` names: modules, `module:object`, or installed ones by name or value."""
    from importlib.metadata import EntryPoint

    installed = {known: entry for entry in plugin_entry_points() for known in (entry.value, entry.name)}
    return [installed.get(name) or EntryPoint(name, name, PLUGINS) for name in names]


def create_driver(url: str, **options: object) -> Store:
    """The driver for a URL such as `sqlite:///jobs.db`, `postgresql://db/app`, `redis://cache` or `memory://`.

    Its scheme (before any `+`) names the entry point; nothing else is imported, and nothing is opened yet. `options` go
    to the driver's constructor. Raises DriverNotFound, which names what to install.
    """
    if not isinstance(url, str):
        raise DriverNotFound(f"The URL must be a string, not {type(url).__name__}.", mend=_URL_EXAMPLE)
    scheme, separator, _ = url.partition("://")
    scheme = scheme.split("+")[0]
    if not separator or not scheme:
        raise DriverNotFound(f'"{one_line(masked(url))}" is not a URL.', mend=_URL_EXAMPLE)
    if scheme == "postgres":  # what other tools accept, and we do not guess whether the rest is theirs too
        raise DriverNotFound(f'"{one_line(masked(url))}" is spelt otherwise here.', mend='Write "postgresql://".')
    check_url(url)
    entries = [entry for entry in driver_entry_points() if entry.name == scheme]
    if not entries:
        raise _not_found(scheme)
    try:
        factory = cast("Callable[..., Store]", entries[0].load())
    except ImportError as error:
        extra = _EXTRAS.get(scheme, scheme)
        raise DriverNotFound(
            f'The driver for "{scheme}" cannot be imported: {error}.', mend=f"Try: pip install 'protojobs[{extra}]'"
        ) from error
    try:
        driver = factory(url, **options)
    except ProtojobsError:
        raise
    except ValueError as error:  # what a library makes of a URL; it may quote any piece of it, so not with a password
        why = "" if "@" in url else f": {one_line(scrubbed(str(error)))}"
        raise ConfigurationError(
            f'"{one_line(masked(url))}" cannot be read by the driver for "{scheme}"{why}.',
            mend=ENCODE if not why else "",
        ) from None
    if driver.port_version != PORT_VERSION:
        raise ConfigurationError(
            f'The driver for "{scheme}" speaks port version {driver.port_version}, this protojobs {PORT_VERSION}.',
            mend="Install matching versions.",
        )
    return driver


def _not_found(scheme: str) -> DriverNotFound:
    if extra := _EXTRAS.get(scheme):
        return DriverNotFound(
            f'The driver for "{scheme}" is not installed.', mend=f"Try: pip install 'protojobs[{extra}]'"
        )
    installed = [entry.name for entry in driver_entry_points()]
    mend = did_you_mean(scheme, {*installed, *_EXTRAS}) or f"Installed: {', '.join(installed) or 'none'}."
    return DriverNotFound(f'No driver is known for "{one_line(scheme)}".', mend=mend)
