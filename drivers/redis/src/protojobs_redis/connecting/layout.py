"""The layout: the version of how jobs are kept (scripts/prelude.lua), and which releases can work on it.

A namespace is marked with its layout, and behind it with the oldest layout whose releases can work on it, where that is
another: "3", or "4 3". So processes of an older release may start again beside newer ones, if what the newer ones add
is additive: further keys, and further fields at the end of what is there, which may be absent. CONTRIBUTING.md has the
rule.
"""

from __future__ import annotations

from typing import NamedTuple

from protojobs.errors import SchemaOutdated, shown

__all__ = ["LAYOUT", "READABLE_FROM", "Mark", "outdated"]

LAYOUT = 3
"""The layout that this release writes."""

READABLE_FROM = 3
"""The oldest layout whose releases can work on this one. This release can work on what they have stored."""


class Mark(NamedTuple):
    """What is written on a namespace."""

    layout: int
    readable_from: int

    @classmethod
    def of_this_release(cls) -> Mark:
        """What `setup` writes."""
        return cls(LAYOUT, READABLE_FROM)

    @classmethod
    def parsed(cls, text: object) -> Mark | None:
        """The mark that a namespace has; None for one that no release writes."""
        words = text.split() if isinstance(text, bytes) else []
        if len(words) not in (1, 2) or not all(word.isdigit() for word in words):
            return None
        return cls(int(words[0]), int(words[-1]))

    @property
    def text(self) -> str:
        """As it is stored. Releases from before there were two numbers know a single one."""
        return str(self.layout) if self.layout == self.readable_from else f"{self.layout} {self.readable_from}"

    @property
    def fits(self) -> bool:
        """Whether this release can work on the namespace."""
        return self.layout == LAYOUT or self.readable_from <= LAYOUT < self.layout

    @property
    def may_be_upgraded(self) -> bool:
        """Whether `setup` can bring the namespace to this release's layout: what is stored there can stay."""
        return READABLE_FROM <= self.layout < LAYOUT


def outdated(text: object, mark: Mark | None, namespace: str, place: str) -> SchemaOutdated:
    """The error for a namespace on which this release cannot work."""
    what = (
        f"The namespace {namespace} in {place} has layout {shown(text)};"
        f" this release of protojobs-redis knows layout {LAYOUT}."
    )
    if mark is None or mark.layout > LAYOUT:
        since = "" if mark is None else f" Only a release that knows {mark.readable_from} can work on it."
        return SchemaOutdated(what + since, mend="Upgrade protojobs-redis.")
    if mark.may_be_upgraded:
        return SchemaOutdated(what, mend='Type "protojobs migrate", or call driver.setup().')
    return SchemaOutdated(what, mend="Transfer its jobs with the version that stored them.")
