"""Pydantic models as data: what they are in JSON, how they are read from it, and what of them would not come back.

Pydantic is no dependency and is never imported here. Whoever has a model has loaded it, so it is looked for among the
loaded modules.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, time
from functools import lru_cache
from typing import ClassVar, NamedTuple, Protocol, cast

import msgspec

from protojobs.jobs.parts import KINDS_MAX, by_name, on_the_clock, under

__all__ = [
    "Change",
    "changes",
    "dumped",
    "fields_without_zone",
    "is_model",
    "lost",
    "parts_of_model",
    "problem",
    "read",
    "refuse_pydantic_dataclass",
]

VERSION_MIN = (2, 11)  # the first that reads a field by its name as well as by its alias
_OWN_RULES = frozenset({"before", "wrap"})  # validators that see the data before its keys are looked for
_LISTS = frozenset({list, tuple})
_SECRETS = frozenset({"Secret", "SecretBytes", "SecretStr"})
_encode = msgspec.json.Encoder().encode


class _Field(Protocol):
    """What is asked of a `FieldInfo`."""

    annotation: object
    alias: str | None
    validation_alias: object
    exclude: bool | None


class _Model(Protocol):
    """What is asked of a `BaseModel`."""

    model_config: ClassVar[Mapping[str, object]]
    model_fields: ClassVar[Mapping[str, _Field]]
    __pydantic_extra__: dict[str, object] | None
    __pydantic_private__: dict[str, object] | None
    __pydantic_root_model__: ClassVar[bool]

    def model_dump(self, *, mode: str, by_alias: bool, round_trip: bool, warnings: bool) -> object:
        """The model as other values."""
        ...

    @classmethod
    def model_validate_json(cls, json_data: bytes, *, by_alias: bool, by_name: bool) -> object:
        """A model of what the JSON says."""
        ...


class _Invalid(Protocol):
    """What is asked of its `ValidationError`."""

    def errors(
        self, *, include_url: bool, include_context: bool, include_input: bool
    ) -> list[Mapping[str, object]]: ...


class Change(NamedTuple):
    """A part of a model that would not come back as it is: its place, a clause that says why, and how to mend it."""

    path: str
    why: str
    mend: str


def _is_model(kind: object) -> bool:
    """Whether it is a class of Pydantic models."""
    base = getattr(sys.modules.get("pydantic.main"), "BaseModel", None)
    return isinstance(base, type) and isinstance(kind, type) and issubclass(kind, base)


is_model = cast("Callable[[object], bool]", lru_cache(maxsize=KINDS_MAX)(_is_model))  # classes are hashable


def refuse_pydantic_dataclass(kind: object) -> None:
    """Raise TypeError for a dataclass of Pydantic: msgspec takes it for a plain one and runs none of its validators."""
    if hasattr(kind, "__pydantic_validator__") and hasattr(kind, "__dataclass_fields__"):
        raise TypeError(
            f"{getattr(kind, '__qualname__', kind)} is a dataclass of Pydantic, whose validators would not run here"
            " (make it a BaseModel, or a plain dataclass)"
        )


def dumped(value: object) -> object:
    """A model in JSON's values, by the names of its fields. Raises TypeError for what is no model."""
    kind = type(value)
    if not is_model(kind):
        raise TypeError(f"Encoding objects of type {kind.__name__} is unsupported")
    _must_be_recent()
    # Without what is computed. The warnings are about values of another type than declared, which are refused anyway.
    return cast("_Model", value).model_dump(mode="json", by_alias=False, round_trip=True, warnings=False)


def read(kind: type[object], value: object) -> object:
    """A model of that class, of JSON's values; a field may stand under its name or its alias. Raises Pydantic's errors.

    From text and not from the values: a strict model takes a date that is text in JSON only.
    """
    _must_be_recent()
    return cast("type[_Model]", kind).model_validate_json(_encode(value), by_alias=True, by_name=True)


def problem(error: BaseException | None) -> tuple[str, str] | None:
    """What Pydantic says is wrong, and where: `.lines[0].price`. Without the value, which may be a secret."""
    if type(error).__name__ != "ValidationError" or not type(error).__module__.startswith("pydantic_core"):
        return None
    errors = cast("_Invalid", error).errors(include_url=False, include_context=False, include_input=False)
    paths = ["".join(_step(step) for step in cast("tuple[object, ...]", one["loc"])) for one in errors]
    message = str(errors[0]["msg"])
    if len(errors) > 1:
        message = f"{message} (and {len(errors) - 1} more: {', '.join(f'${path}' for path in paths[1:4])})"
    return message, paths[0]


def parts_of_model(value: object) -> dict[str, object]:
    """The fields of a model by their names, and what else it has taken."""
    model = cast("_Model", value)
    return {**_fields(model), **(model.__pydantic_extra__ or {})}


def changes(sent: object, back: object, path: str) -> Iterator[Change]:
    """The parts of a model that came back otherwise than they were sent."""
    kind, its_kind = type(sent), type(back)
    if is_model(kind):
        yield from _changes_of_model(cast("_Model", sent), back, path)
    elif (kind is dict or hasattr(kind, "__dataclass_fields__")) and its_kind is kind:
        yield from _changes_by_name(by_name(sent), by_name(back), path)
    elif kind in _LISTS and its_kind in _LISTS:
        here, there = (dict(enumerate(cast("list[object]", value))) for value in (sent, back))
        for index, item in here.items():
            yield from changes(item, there.get(index), f"{path}[{index}]")
    elif not _is_same(sent, back):
        mend = "Give the field a serializer that writes what its type reads, or leave it out of the model."
        if kind.__name__ in _SECRETS:
            mend = "Push a reference to the secret, such as an id."
        yield Change(path, f"is a {kind.__module__}.{kind.__qualname__}, which would not come back as it is", mend)


def _changes_by_name(sent: dict[object, object], back: dict[object, object], path: str) -> Iterator[Change]:
    for name, item in sent.items():
        if name in back:
            yield from changes(item, back[name], under(path, str(name)))
        else:
            yield Change(under(path, str(name)), "would get another key", "Declare the type of the keys.")


def lost(sent: object, made: object, path: str) -> Iterator[str]:
    """The places of keys that a model would not keep, of the plain data that it was made of.

    Pydantic ignores them unless it is told otherwise; so a misspelt key would be lost without an error.
    """
    if is_model(type(made)):
        yield from _lost_by_model(sent, cast("_Model", made), path)
    elif isinstance(sent, dict) and isinstance(made, dict):
        values = {str(key): value for key, value in cast("dict[object, object]", made).items()}
        for key, item in cast("dict[str, object]", sent).items():
            yield from lost(item, values.get(key), under(path, key))
    elif isinstance(sent, list | tuple) and isinstance(made, list | tuple):
        pairs = zip(cast("list[object]", sent), cast("list[object]", made), strict=False)
        for index, (item, other) in enumerate(pairs):
            yield from lost(item, other, f"{path}[{index}]")


def _lost_by_model(sent: object, made: _Model, path: str) -> Iterator[str]:
    if _is_root(made):
        yield from lost(sent, _fields(made)["root"], path)
    elif isinstance(sent, dict):
        names, takes_all = _keys(type(made))
        for key, item in cast("dict[str, object]", sent).items():
            if key in names:
                yield from lost(item, getattr(made, names[key], None), under(path, key))
            elif not takes_all:
                yield under(path, key)


@lru_cache(maxsize=KINDS_MAX)
def fields_without_zone(kind: type[object]) -> frozenset[str]:
    """The fields of a model that are declared to hold datetimes without a time zone: as `NaiveDatetime`."""
    fields = cast("type[_Model]", kind).model_fields
    return frozenset(name for name, field in fields.items() if "NaiveDatetime" in repr(field.annotation))


def _changes_of_model(sent: _Model, back: object, path: str) -> Iterator[Change]:
    kind = type(sent)
    if type(back) is not kind:
        yield Change(
            path,
            f"is a {kind.__qualname__}, and would come back as a {type(back).__qualname__}",
            "Declare the class that is pushed. Of several, make a union with a discriminator in a model.",
        )
        return
    there = parts_of_model(back)
    for name, item in parts_of_model(sent).items():
        place = path if _is_root(sent) else under(path, name)
        for change in changes(item, there.get(name), place):
            if (field := kind.model_fields.get(name)) is not None and field.exclude:
                change = Change(place, "is excluded from what the model dumps", "Leave it at its default.")
            yield change
    private = cast("dict[str, object]", getattr(back, "__pydantic_private__", None) or {})
    for name, item in (sent.__pydantic_private__ or {}).items():
        if not _is_same(item, private.get(name)):
            yield Change(under(path, name), "is private, and would be left out", "Make it a field, or leave it alone.")


def _is_same(sent: object, back: object) -> bool:
    """Whether they are equal. Of objects that say nothing of that, whether they are of one class."""
    kind = type(sent)
    if isinstance(sent, datetime | time) and isinstance(back, datetime | time):
        return on_the_clock(sent)[:2] == on_the_clock(back)[:2]
    if kind.__eq__ is object.__eq__:
        return type(back) is kind
    try:
        return bool(sent == back) and isinstance(sent, bool) == isinstance(back, bool)
    except Exception:  # noqa: BLE001  (a class of the user's own: what cannot be compared cannot be vouched for)
        return False


def _fields(model: _Model) -> dict[str, object]:
    return {name: getattr(model, name, None) for name in type(model).model_fields}


def _is_root(model: _Model) -> bool:
    return bool(getattr(type(model), "__pydantic_root_model__", False))


@lru_cache(maxsize=KINDS_MAX)
def _keys(kind: type[_Model]) -> tuple[dict[str, str], bool]:
    """The keys under which a field may stand in JSON, with its name; and whether it may take any key."""
    names = {name: name for name in kind.model_fields}
    for name, field in kind.model_fields.items():
        for alias in (field.alias, *_spellings(field.validation_alias)):
            if alias is not None:
                names.setdefault(alias, name)
    decorators = getattr(getattr(kind, "__pydantic_decorators__", None), "model_validators", {})
    modes = {getattr(one.info, "mode", "") for one in decorators.values()}
    return names, kind.model_config.get("extra") == "allow" or bool(modes & _OWN_RULES)


def _spellings(alias: object) -> Iterator[str]:
    """What an alias may be: a text, a path of which the first step is a key, or a choice of these."""
    if isinstance(alias, str):
        yield alias
    elif (choices := getattr(alias, "choices", None)) is not None:
        for choice in choices:
            yield from _spellings(choice)
    elif path := getattr(alias, "path", None):
        yield str(path[0])


def _step(step: object) -> str:
    return f"[{step}]" if isinstance(step, int) else under("", str(step))


def _must_be_recent() -> None:
    version = str(getattr(sys.modules.get("pydantic"), "VERSION", ""))
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < VERSION_MIN:
        least = ".".join(map(str, VERSION_MIN))
        raise TypeError(f"models as data take Pydantic {least} or newer, and this is {version}")
