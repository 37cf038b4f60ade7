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
from protojobs.jobs.pydantic_models import fields_without_zone, is_model, parts_of_model
from protojobs.jobs.type_parts import WITH_FIELDS, directly_in, within

__all__ = ["Finder", "finder_of"]

Finder: TypeAlias = Callable[[object], Iterator[tuple[str, datetime]]]
"""The naive datetimes in a value, each with its place."""


def finder_of(whole: inspect.Type | None) -> Finder | None:
    """What finds them in data of this type; None where the type has no field for a moment. Without a type: in all."""
    if whole is None:
        return lambda value: _in_value(value, "$")
    looked_at = {id(part): part for part in within(whole)}
    wanted = {place for place, part in looked_at.items() if any(_is_moment(inner) for inner in within(part))}
    return (lambda value: _naive(whole, value, "$", wanted)) if wanted else None


def _is_moment(info: inspect.Type) -> bool:
    if isinstance(info, inspect.CustomType):
        return is_model(info.cls)  # it may have one
    return isinstance(info, inspect.DateTimeType) and info.tz is None


def _naive(info: inspect.Type, value: object, path: str, wanted: set[int]) -> Iterator[tuple[str, datetime]]:
    """Those in a value of this type. Of a union each type is tried, and those that the value is not find nothing."""
    if id(info) not in wanted:
        return
    if isinstance(info, inspect.DateTimeType):
        if isinstance(value, datetime) and value.utcoffset() is None:
            yield path, value
        return
    if isinstance(info, inspect.CustomType):
        yield from _in_value(value, path)
        return
    for place, part, its_type in _parts(info, value, path):
        yield from _naive(its_type, part, place, wanted)


def _parts(info: inspect.Type, value: object, path: str) -> Iterator[tuple[str, object, inspect.Type]]:
    """The parts of a value, each with its place and its type."""
    if isinstance(info, inspect.Metadata | inspect.UnionType):
        yield from ((path, value, one) for one in directly_in(info))
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
    elif isinstance(info, WITH_FIELDS):
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
    """All of them, in whatever holds them; without the fields of a model that are for them."""
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            yield path, value
    elif isinstance(value, ROWS):
        for index, item in enumerate(cast("list[object]", value)):
            yield from _in_value(item, f"{path}[{index}]")
    elif is_model(type(value)):
        excused = fields_without_zone(type(value))  # type: ignore[arg-type]  # a class is hashable
        for field, item in parts_of_model(value).items():
            if field not in excused:
                yield from _in_value(item, under(path, field))
    else:
        for name, item in by_name(value).items():
            yield from _in_value(item, under(path, str(name)))
