"""Carries Sentry's trace headers in a job's `meta`: put in at the push, read at each run."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import sentry_sdk

__all__ = ["HEADERS_BYTES_MAX", "headers_of", "with_headers"]

HEADERS_BYTES_MAX = 2 * 1024  # it is stored with every job; beyond this bound the baggage stays behind
_TRACE, _BAGGAGE = "sentry-trace", "sentry-baggage"  # OpenTelemetry's plugin has the key `baggage`


def with_headers(meta: str | None) -> str | None:
    """`meta` with the headers of the current trace; unchanged where it holds something else than strings."""
    try:
        values = msgspec.json.decode(meta, type=dict[str, str]) if meta else {}
    except (msgspec.DecodeError, UnicodeError):
        return meta
    trace, baggage = sentry_sdk.get_traceparent() or "", sentry_sdk.get_baggage() or ""
    if _TRACE in values or not trace or len(trace) > HEADERS_BYTES_MAX:
        return meta
    values[_TRACE] = trace
    if baggage and len(trace) + len(baggage.encode()) <= HEADERS_BYTES_MAX:
        values[_BAGGAGE] = baggage
    return msgspec.json.encode(values).decode()


def headers_of(meta: Mapping[str, str]) -> dict[str, str]:
    """The headers that `with_headers` has put there, by the names that the SDK reads; none where there are none."""
    if _TRACE not in meta:
        return {}
    return {"sentry-trace": meta[_TRACE], "baggage": meta.get(_BAGGAGE, "")}
