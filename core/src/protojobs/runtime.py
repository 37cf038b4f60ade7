"""What the parts of one program share: its store, its settings, the jobs it knows, its plugins, its clock."""

from __future__ import annotations

from msgspec import Struct

from protojobs.clock import Clock
from protojobs.config import Settings
from protojobs.hooks.hooks import Hooks
from protojobs.jobs.definition import Registry
from protojobs.port.driver import Store

__all__ = ["Runtime"]


class Runtime(Struct, frozen=True, kw_only=True):
    """Made by a JobQueue and handed down, so that what is below knows no queue."""

    driver: Store
    settings: Settings
    registry: Registry
    hooks: Hooks
    clock: Clock
