"""What is wrong with a store, and why a job is not running."""

from __future__ import annotations

from protojobs.doctor.examining import examine
from protojobs.doctor.explaining import Check, Explanation, explain

__all__ = [
    "Check",
    "Explanation",
    "examine",
    "explain",
]
