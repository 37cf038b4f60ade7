"""A forked child takes new locks: those that a thread of its parent held would never be free there."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["start_afresh_in_children"]


class _StartsAfresh(Protocol):
    def start_afresh(self) -> None:
        """Take new locks, and forget threads: those of the parent do not follow."""


_holders: weakref.WeakSet[_StartsAfresh] = weakref.WeakSet()


def start_afresh_in_children(holder: _StartsAfresh) -> None:
    """From now on each forked child calls its `start_afresh` before anything else."""
    _holders.add(holder)


def _in_child() -> None:
    for holder in list(_holders):
        holder.start_afresh()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
