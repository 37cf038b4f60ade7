"""The settings `PROTOJOBS_OPENTELEMETRY_*`: how spans are linked, and whether to count."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

__all__ = ["OpenTelemetrySettings"]


class OpenTelemetrySettings(Struct, frozen=True, kw_only=True):
    """`trace`: how a run's span belongs to that of its push.

    `link`: it begins a trace of its own and links to the push, as the conventions have it; every retry does.
    `parent`: it is part of the pusher's trace, which then lasts as long as the job waits. `none`: no spans.
    """

    trace: Literal["link", "parent", "none"] = "link"
    metrics: bool = True
