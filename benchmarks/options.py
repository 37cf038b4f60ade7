"""Kinds of arguments that the commands here have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable


def some_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Names of these, with commas between."""

    def parse(text: str) -> list[str]:
        unknown = [name for name in text.split(",") if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"no {', '.join(unknown)}; there are {', '.join(known)}")
        return text.split(",")

    return parse


def positive(text: str) -> int:
    """A whole number."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("1 or more")
    return number


def two(text: str) -> tuple[int, int]:
    """Two whole numbers."""
    first, second = (positive(word) for word in text.split(","))
    return first, second
