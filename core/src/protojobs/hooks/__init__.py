"""Plugins: the hooks, how they are found, and the calls that keep one plugin from hurting another."""

from __future__ import annotations

from protojobs.hooks.hooks import Dispatcher, Hooks, HookSpecs, hookimpl, hooks_of

__all__ = [
    "Dispatcher",
    "HookSpecs",
    "Hooks",
    "hookimpl",
    "hooks_of",
]
