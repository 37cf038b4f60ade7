"""The store and this process, for people: what the driver can, which settings are in force, what is installed."""

from __future__ import annotations

import platform
from importlib.metadata import distributions

import msgspec

from protojobs.config import Settings
from protojobs.doctor import examining, explaining
from protojobs.doctor.explaining import Explanation
from protojobs.inspector.scope import Scope
from protojobs.inspector.views import SystemView
from protojobs.port.diagnosis import Finding
from protojobs.port.urls import masked

__all__ = ["doctor", "explain", "system"]

DISTRIBUTION = "protojobs"  # and all whose name begins so


def system(scope: Scope) -> SystemView:
    """The store and this process, without secrets. One round trip."""
    with scope.looking():
        now = scope.driver.now()
    settings = scope.queue.settings
    return SystemView(
        at=now,
        driver=repr(scope.driver),
        url=masked(settings.url) if settings.url else "",
        capabilities=msgspec.structs.asdict(scope.driver.capabilities),
        settings=_shown(settings),
        versions={**_versions(), "python": platform.python_version()},
        plugins=tuple(scope.queue.hooks.plugins),
    )


def doctor(scope: Scope) -> list[Finding]:
    """What is wrong with the store, the workers and these settings, the worst first; bounded to half a minute."""
    scope.access.look()
    return examining.examine(scope.queue)


def explain(scope: Scope, job_id: str) -> Explanation:
    """Why the job is not running, or who runs it, or how it ended. A few round trips."""
    with scope.looking():
        return explaining.explain(scope.queue, job_id)


def _shown(settings: Settings) -> dict[str, str]:
    shown = {name: str(value) for name, value in msgspec.structs.asdict(settings).items()}
    shown["url"] = masked(settings.url) if settings.url else ""
    for name in ("app", "plugins", "plugins_disabled"):
        shown[name] = ", ".join(getattr(settings, name))
    return {**shown, "schedules": ", ".join(settings.schedules)}  # their data is nobody's business here


def _versions() -> dict[str, str]:
    versions = {one.name.lower(): one.version for one in distributions() if one.name}
    return {name: versions[name] for name in sorted(versions) if name.startswith(DISTRIBUTION)}
