"""The filter language: from a text to a test of one job. Pure."""

from __future__ import annotations

from protojobs.querying.query import KEYS, QUERY_CHARS_MAX, Query, parse, quoted, words

__all__ = [
    "KEYS",
    "QUERY_CHARS_MAX",
    "Query",
    "parse",
    "quoted",
    "words",
]
