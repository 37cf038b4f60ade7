"""Pushes what a soak runs; see producer.py. `hold_s`: how long a job holds a connection of its application."""

from __future__ import annotations

import json
import sys

from .jobs import Plan
from .producer import Producer
from .soaking import SQL_KINDS

__all__ = ["SoakingProducer"]


class SoakingProducer(Producer):
    """The jobs of soaking.py."""

    kinds = SQL_KINDS

    def __init__(self, options: dict[str, float | int | str]) -> None:
        super().__init__(options)
        self.hold_s = float(options["hold_s"])

    def plan(self, kind: str) -> tuple[Plan, float]:
        """As others, but for those that hold a connection."""
        plan, delay = super().plan(kind)
        return (Plan(self.hold_s), 0.0) if kind == "hold" else (plan, delay)


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    SoakingProducer(asked).run(int(asked["count"]))
