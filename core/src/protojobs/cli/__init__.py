"""The command line, `protojobs`: parse, build, call. One module per command; the composition root."""

from __future__ import annotations

from protojobs.cli.entry import main

__all__ = ["main"]
