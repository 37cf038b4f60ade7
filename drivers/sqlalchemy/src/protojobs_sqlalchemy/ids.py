"""Job ids: UUIDs in their one canonical spelling, since two databases keep them as 16 bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["canonical", "known"]

canonical = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch


def known(ids: Iterable[str]) -> list[str]:
    """Those that can be in the store at all, each once; every other spelling is simply missing."""
    return [job_id for job_id in dict.fromkeys(ids) if canonical(job_id)]
