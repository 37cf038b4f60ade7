"""The command line, `protojobs`: it parses arguments, builds the queue, the worker or the scheduler, and calls it."""

from __future__ import annotations

from protojobs.cli.entry import main

__all__ = ["main"]
