"""The parts of a value in a job's data, and their places as messages name them: `$.user.days[2]`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, time
from functools import lru_cache
from typing import cast

import msgspec

from protojobs.errors import one_line

__all__ = ["KINDS_MAX", "ROWS", "attributes", "by_name", "on_the_clock", "under"]

KINDS_MAX = 1_024  # classes of which is remembered what an instance holds
ROWS: tuple[type, ...] = (list, tuple, set, frozenset)
_KEY_MAX, _PATH_MAX = 100, 300  # characters of a key, and of a path, in a message


def under(path: str, key: str) -> str:
    """The place of that key. Keys are whatever somebody sent: on one line, and no longer than a sentence can bear."""
    if len(path) > _PATH_MAX:
        path = f"{path[: _PATH_MAX // 2]}...{path[-_PATH_MAX // 2 :]}"
    return f"{path}.{one_line(key, _KEY_MAX)}"


def by_name(value: object) -> dict[object, object]:
    """The parts of an object by the names that they have in JSON."""
    if isinstance(value, dict):
        return cast("dict[object, object]", value)
    names = attributes(type(value))  # type: ignore[arg-type]  # a class is hashable
    return {name: getattr(value, attribute, None) for name, attribute in names.items()}


@lru_cache(maxsize=KINDS_MAX)
def attributes(kind: type[object]) -> dict[str, str]:
    """The names in JSON of what an instance holds, and those of its attributes."""
    of_attrs: list[str] = [field.name for field in getattr(kind, "__attrs_attrs__", ())]
    names: Iterable[str] = getattr(kind, "__dataclass_fields__", of_attrs)
    if issubclass(kind, msgspec.Struct):
        return {field.encode_name: field.name for field in msgspec.structs.fields(kind)}
    return {name: name for name in names}


def on_the_clock(moment: datetime | time) -> tuple[object, object, bool]:
    """What it says, and where. (Python calls two times unequal that a clock shows twice, if their zones differ.)"""
    return moment.replace(tzinfo=None), moment.utcoffset(), moment.tzinfo is None
