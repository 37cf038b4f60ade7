"""Scheduler: register schedules, and fire each time once."""

from __future__ import annotations

from protojobs.scheduler.scheduler import Scheduler, TickReport, Upcoming

__all__ = [
    "Scheduler",
    "TickReport",
    "Upcoming",
]
