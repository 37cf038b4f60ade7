"""The types that a data type is made of, as msgspec knows them."""

from __future__ import annotations

import typing

from msgspec import inspect

__all__ = ["WITH_FIELDS", "classes_in", "directly_in", "type_of", "within"]

WITH_FIELDS = (inspect.StructType, inspect.DataclassType, inspect.NamedTupleType, inspect.TypedDictType)


def type_of(data_type: object) -> inspect.Type | None:
    """What msgspec knows of it; None where it reads such data, and cannot tell what is in it."""
    try:
        return inspect.type_info(data_type)
    except TypeError:
        return None


def classes_in(whole: inspect.Type) -> list[object]:
    """The classes of its records, and those that msgspec does not know."""
    kinds = (inspect.DataclassType, inspect.CustomType)
    return [typing.get_origin(info.cls) or info.cls for info in within(whole) if isinstance(info, kinds)]


def within(whole: inspect.Type) -> list[inspect.Type]:
    """The type and all the types in it, each once: a type may be a part of itself."""
    seen: dict[int, inspect.Type] = {}
    left = [whole]
    while left:
        info = left.pop()
        if id(info) not in seen:
            seen[id(info)] = info
            left.extend(directly_in(info))
    return list(seen.values())


def directly_in(info: inspect.Type) -> list[inspect.Type]:
    """The types of its parts."""
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
    return [field.type for field in info.fields] if isinstance(info, WITH_FIELDS) else []
