"""Carries the trace context in a job's `meta`: put in at the push, read at each run. Other keys are not touched."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from opentelemetry import propagate
from opentelemetry.context import Context

__all__ = ["CONTEXT_BYTES_MAX", "extracted", "injected"]

# W3C allows 8 KiB of baggage. It would be stored with every job, so beyond this bound all but the trace's own id stays
# behind.
CONTEXT_BYTES_MAX = 2 * 1024
_ESSENTIAL = "traceparent"


def injected(meta: str | None, context: Context) -> str | None:
    """`meta` with the context beside what is in it already; unchanged where it holds something else than strings."""
    try:
        values = msgspec.json.decode(meta, type=dict[str, str]) if meta else {}
    except (msgspec.DecodeError, UnicodeError):
        return meta
    carrier: dict[str, str] = {}
    propagate.inject(carrier, context)
    if sum(len(key.encode()) + len(value.encode()) for key, value in carrier.items()) > CONTEXT_BYTES_MAX:
        carrier = {key: value for key, value in carrier.items() if key == _ESSENTIAL}
    new = {key: value for key, value in carrier.items() if key not in values}
    return msgspec.json.encode({**values, **new}).decode() if new else meta


def extracted(meta: Mapping[str, str]) -> Context:
    """The context that `injected` has put there; an empty one where there is none."""
    return propagate.extract(meta, Context())
