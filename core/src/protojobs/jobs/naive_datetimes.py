"""Finds the datetimes without a time zone in typed data. A field may be declared to hold such; then it is passed over.

Which field that is stands in the type and not in the value, so the two are walked together.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TypeAlias, cast

from msgspec import inspect

from protojobs.jobs.parts import ROWS, by_name, under

__all__ = ["Finder", "finder_of"]

Finder: TypeAlias = Callable[[object], Iterator[tuple[str, datetime]]]
"""The naive datetimes in a value, each with its place."""

_WITH_FIELDS = (inspect.StructType, inspect.DataclassType, inspect.NamedTupleType, inspect.TypedDictType)


def finder_of(data_type: object) -> Finder | None:
    """What finds them in data of this type; None where the type has no field for a moment."""
    try:
        whole = inspect.type_info(data_type)
    except TypeError:  # msgspec reads such data, and cannot tell what is in it
        return lambda value: _in_value(value, "$")
    looked_at = {id(part): part for part in _within(whole)}
    wanted = {place for place, part in looked_at.items() if any(_is_moment(inner) for inner in _within(part))}
    return (lambda value: _naive(whole, value, "$", wanted)) if wanted else None


def _is_moment(info: inspect.Type) -> bool:
    return isinstance(info, inspect.DateTimeType) and info.tz is None


def _within(whole: inspect.Type) -> list[inspect.Type]:
    """The type and all the types in it, each once: a type may be a part of itself."""
    seen: dict[int, inspect.Type] = {}
    left = [whole]
    while left:
        info = left.pop()
        if id(info) not in seen:
            seen[id(info)] = info
            left.extend(_directly_in(info))
    return list(seen.values())


def _directly_in(info: inspect.Type) -> list[inspect.Type]:
    if isinstance(info, inspect.Metadata):
        return [info.type]
    if isinstance(info, inspect.UnionType):
        return list(info.types)
    if isinstance(info, inspect.CollectionType):
        return [info.item_type]
    if isinstance(info, inspect.TupleType):
        return list(info.item_types)
    if isinstance(info, inspect.DictType):
        return [info.key_type, info.value_type]
    return [field.type for field in info.fields] if isinstance(info, _WITH_FIELDS) else []


def _naive(info: inspect.Type, value: object, path: str, wanted: set[int]) -> Iterator[tuple[str, datetime]]:
    """Those in a value of this type. Of a union each type is tried, and those that the value is not find nothing."""
    if id(info) not in wanted:
        return
    if isinstance(info, inspect.DateTimeType):
        if isinstance(value, datetime) and value.utcoffset() is None:
            yield path, value
        return
    for place, part, its_type in _parts(info, value, path):
        yield from _naive(its_type, part, place, wanted)


def _parts(info: inspect.Type, value: object, path: str) -> Iterator[tuple[str, object, inspect.Type]]:
    """The parts of a value, each with its place and its type."""
    if isinstance(info, inspect.Metadata | inspect.UnionType):
        yield from ((path, value, one) for one in _directly_in(info))
    elif isinstance(info, inspect.CollectionType | inspect.TupleType):
        if isinstance(value, ROWS):
            items = list(cast("list[object]", value))
            types = [info.item_type] * len(items) if isinstance(info, inspect.CollectionType) else info.item_types
            pairs = zip(items, types, strict=False)
            yield from ((f"{path}[{index}]", item, its_type) for index, (item, its_type) in enumerate(pairs))
    elif isinstance(info, inspect.DictType):
        for key, item in cast("dict[object, object]", value).items() if isinstance(value, dict) else ():
            yield f"{path} (a key)", key, info.key_type
            yield under(path, str(key)), item, info.value_type
    elif isinstance(info, _WITH_FIELDS):
        yield from _fields(info, value, path)


def _fields(
    info: inspect.StructType | inspect.DataclassType | inspect.NamedTupleType | inspect.TypedDictType,
    value: object,
    path: str,
) -> Iterator[tuple[str, object, inspect.Type]]:
    if isinstance(info, inspect.TypedDictType):
        there = cast("dict[str, object]", value) if isinstance(value, dict) else {}
        known = [(field, there[field.name]) for field in info.fields if field.name in there]
    else:  # of a type that is a part of itself there is none at the end
        is_one = isinstance(value, typing.get_origin(info.cls) or info.cls)
        known = [(field, getattr(value, field.name, None)) for field in info.fields] if is_one else []
    yield from ((under(path, field.encode_name), part, field.type) for field, part in known)


def _in_value(value: object, path: str) -> Iterator[tuple[str, datetime]]:
    """All of them, in whatever holds them."""
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            yield path, value
    elif isinstance(value, ROWS):
        for index, item in enumerate(cast("list[object]", value)):
            yield from _in_value(item, f"{path}[{index}]")
    else:
        for name, item in by_name(value).items():
            yield from _in_value(item, under(path, str(name)))
