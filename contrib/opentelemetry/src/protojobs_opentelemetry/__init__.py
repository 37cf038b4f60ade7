"""Traces and metrics of protojobs by OpenTelemetry: a push and the runs that follow from it, linked.

    $ export PROTOJOBS_OPENTELEMETRY_TRACE=link

Uses the API package only: what exports the spans is set up by the application, or by `opentelemetry-instrument`.
Programs that have this installed and do not ask for it import nothing of OpenTelemetry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from protojobs_opentelemetry.settings import OpenTelemetrySettings

if TYPE_CHECKING:
    from protojobs_opentelemetry.tracing import OpenTelemetry

__all__ = ["OpenTelemetry", "OpenTelemetrySettings"]


def __getattr__(name: str) -> object:
    if name == "OpenTelemetry":
        from protojobs_opentelemetry.tracing import OpenTelemetry

        return OpenTelemetry
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
