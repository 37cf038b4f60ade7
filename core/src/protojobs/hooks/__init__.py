"""Plugins: the hooks, how they are found, and the calls that keep one plugin from hurting another."""

from __future__ import annotations

from protojobs.hooks.dispatcher import Dispatcher
from protojobs.hooks.hooks import Hooks
from protojobs.hooks.specs import HookSpecs, hookimpl, hooks_of

__all__ = [
    "Dispatcher",
    "HookSpecs",
    "Hooks",
    "hookimpl",
    "hooks_of",
]
