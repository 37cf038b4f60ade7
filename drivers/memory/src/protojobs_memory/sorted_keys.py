"""Keys kept in order: what an index is to a database.

A sorted list made of short sorted lists, so that adding, removing and counting move at most one short list, however
many keys there are.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from datetime import datetime
from operator import itemgetter
from typing import Generic, TypeVar

__all__ = ["SortedKeys", "TimeKey"]

BLOCK_KEYS = 512  # moving 4 to 8 KiB costs less than the call that asks for it

TimeKey = tuple[datetime, str]  # a moment and an id: due times, ends of runs
Key = TypeVar("Key", str, TimeKey)

_last = itemgetter(-1)


class SortedKeys(Generic[Key]):
    """Distinct keys in ascending order. Do not add or remove while walking: collect first."""

    def __init__(self) -> None:
        self._blocks: list[list[Key]] = []  # none is empty, and each ends before the next begins

    def add(self, key: Key) -> None:
        """Put `key` in its place; at the end, where most go, at once."""
        blocks = self._blocks
        last = blocks[-1] if blocks else None
        if last is None or key > last[-1]:
            if last is None or len(last) >= BLOCK_KEYS:
                blocks.append([key])
            else:
                last.append(key)
            return
        at = bisect_left(blocks, key, key=_last)
        block = blocks[at]
        insort(block, key)
        if len(block) > 2 * BLOCK_KEYS:
            blocks.insert(at + 1, block[BLOCK_KEYS:])
            del block[BLOCK_KEYS:]

    def remove(self, key: Key) -> None:
        """Take `key`, which is there, out."""
        blocks, at, place = self._blocks, 0, 0
        block = blocks[0]
        if block[0] != key:  # claims take from the front
            if key > block[-1]:
                at = bisect_left(blocks, key, key=_last)
                block = blocks[at]
            place = bisect_left(block, key)
            assert block[place] == key
        del block[place]
        if not block:
            del blocks[at]

    def below(self, bound: Key) -> Iterator[Key]:
        """The keys before `bound`, ascending."""
        for block in self._blocks:
            if block[-1] < bound:
                yield from block
            else:
                yield from block[: bisect_left(block, bound)]
                return

    def above(self, bound: Key) -> Iterator[Key]:
        """The keys after `bound`, ascending."""
        at = bisect_left(self._blocks, bound, key=_last)
        if at < len(self._blocks):
            yield from self._blocks[at][bisect_right(self._blocks[at], bound) :]
            for block in self._blocks[at + 1 :]:
                yield from block

    def downwards(self, bound: Key | None = None) -> Iterator[Key]:
        """The keys before `bound` (None: all), descending."""
        blocks = self._blocks
        at = len(blocks) - 1
        if bound is not None:
            at = min(at, bisect_left(blocks, bound, key=_last))
            if at >= 0:
                yield from reversed(blocks[at][: bisect_left(blocks[at], bound)])
                at -= 1
        while at >= 0:
            yield from reversed(blocks[at])
            at -= 1

    def count_below(self, bound: Key) -> int:
        """How many keys come before `bound`."""
        at = bisect_left(self._blocks, bound, key=_last)
        count = sum(len(block) for block in self._blocks[:at])
        return count + (bisect_left(self._blocks[at], bound) if at < len(self._blocks) else 0)

    def first(self) -> Key | None:
        """The smallest key."""
        return self._blocks[0][0] if self._blocks else None

    def __contains__(self, key: Key) -> bool:
        at = bisect_left(self._blocks, key, key=_last)
        if at == len(self._blocks):
            return False
        block = self._blocks[at]
        return block[bisect_left(block, key)] == key

    def __iter__(self) -> Iterator[Key]:
        for block in self._blocks:
            yield from block

    def __bool__(self) -> bool:
        return bool(self._blocks)

    def __len__(self) -> int:
        return sum(map(len, self._blocks))
