"""Encodes a job's data as the JSON text that the store keeps, and decodes it. What would not come back is refused.

JSON loses things in silence: NaN becomes null, a date becomes text, `{1: ...}` becomes `{"1": ...}`, a misspelt key of
a typed record is dropped. So `encode` looks at the data first, decodes what it wrote, and compares.
"""

from __future__ import annotations

import math
import os
import re
import threading
import typing
from collections.abc import Callable, Collection, Iterator
from datetime import datetime, time, timedelta
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

import msgspec

from protojobs.errors import DataInvalid, PayloadNotDecodable, PayloadNotEncodable, PayloadTooLarge, one_line, shown
from protojobs.jobs import pydantic_models
from protojobs.jobs.parts import KINDS_MAX, ROWS, attributes, by_name, on_the_clock, under
from protojobs.jobs.pydantic_models import is_model

if TYPE_CHECKING:
    from protojobs.jobs.naive_datetimes import Finder

__all__ = ["DEPTH_MAX", "PAYLOAD_BYTES_MAX", "decode", "encode"]

PAYLOAD_BYTES_MAX = (
    1024 * 1024
)  # default of the setting `payload_bytes_max`; a store holds references to more, not blobs
DEPTH_MAX = 100  # nested lists and objects; deeper data is a mistake or an attack, and would exhaust the stack
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1  # what every JSON reader of the field keeps exactly

DataType: TypeAlias = object
"""A dataclass, TypedDict or msgspec.Struct, or None: any JSON value."""

_KEYS = frozenset({str})
_ALWAYS_PLAIN = frozenset({str, bool, type(None)})
_SCALARS = _ALWAYS_PLAIN | {int, float}
_COMES_FROM: dict[type, type | tuple[type, ...]] = {  # what JSON has, and what may come back as that
    **{str: str, bool: bool, type(None): type(None), int: int, float: (float, int)},
    **{list: (list, tuple), dict: dict},
}
_NO_TEXTS = _SCALARS - {str}
_FEW = 100  # values, of which none can be so large in JSON that it matters
_DEEP = -(2**62)  # instead of a number of values: nested too deep
_FINE = re.compile(r"[.,]\d{6}\d*[1-9]")  # a fraction of a second finer than Python has it
_SPELLINGS_MAX = 1_000  # elements of a set with which one that is spelled otherwise is compared
_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(enc_hook=pydantic_models.dumped, order="sorted").encode
_decode_any = msgspec.json.Decoder().decode
_READERS_MAX = 1_024
_readers: dict[DataType, _Reader] = {}
_making = threading.Lock()


class _Reader(NamedTuple):
    """How data of one type is read."""

    decode: Callable[[bytes | str], object]
    read: Callable[[bytes | str], object]  # the same for a run, which must not begin with what push refuses
    naive: Finder | None  # where a datetime of this type must have a zone
    has_models: bool  # of Pydantic


def _unlock_in_copy() -> None:
    global _making
    _making = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_in_copy)


def encode(data: object, data_type: DataType, *, what: str, bytes_max: int = PAYLOAD_BYTES_MAX) -> str:
    """`data` as JSON text. Raises a PayloadError that names the place in the data; `what` names the job."""
    values_max = bytes_max // 2  # each value takes two bytes at least, with the comma or bracket before it
    left = _left_of_plain(data, 0, values_max)
    if left < max(0, values_max - _FEW):  # a few texts are a few times what is in memory already
        _must_be_small(data, what, bytes_max)
    plain = data if left >= 0 else _made_plain(data, data_type, values_max, what)
    is_sorted = data_type is not None and plain is data
    try:
        encoded = (_encode_sorted if is_sorted else _encode)(plain)
    except UnicodeEncodeError:
        _check(plain, "$", what)  # names the place
        raise
    if len(encoded) > bytes_max:
        raise _too_large(f"takes {len(encoded):,} bytes", "$", bytes_max, what)
    if data_type is not None:
        came_back = _must_come_back(plain, encoded, data_type, what, is_sorted=is_sorted)
        if left < 0:
            _must_be_made_again(data, came_back, "$", what)
        if _reader_of(data_type).naive is not None:  # so it is of models, which may hold a datetime
            encoded = _with_zones(came_back, encoded, _reader_of(data_type), what, bytes_max)
    return encoded.decode()


def decode(text: str, data_type: DataType, *, what: str) -> object:
    """The data as the job wants it. Raises PayloadNotDecodable when the text is not (or no longer) that."""
    try:
        return _decode_any(text) if data_type is None else _reader_of(data_type).read(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError, TypeError) as error:
        raise PayloadNotDecodable(
            f"{what}: the stored data does not decode: {one_line(_said(error))}.",
            mend="It was written by another version of the job, or changed in the store.",
        ) from error


def _said(error: Exception) -> str:
    if pydantic_models.problem(error.__cause__) is None:
        return str(error)
    message, path = _problem(cast("msgspec.ValidationError", error))
    return f"{message.rstrip('.')} at {path}"


def _too_large(how: str, path: str, bytes_max: int, what: str, mend: str = "") -> PayloadTooLarge:
    return PayloadTooLarge(
        f"{what}: {'the data' if path == '$' else path} {how}, and at most {bytes_max:,} bytes are allowed.",
        path=path,
        mend=mend or "Store the large part elsewhere and push a reference to it, or raise payload_bytes_max.",
    )


def _made_plain(data: object, data_type: DataType, values_max: int, what: str) -> object:
    """Typed data as what JSON has. Raises a PayloadError where that says something else, or cannot be."""
    plain = data if data_type is None else _as_builtins(data, what)
    if plain is data or _left_of_plain(plain, 0, values_max) < 0:
        _check(plain, "$", what)
    return plain


def _as_builtins(data: object, what: str) -> object:
    try:
        return _in_json(data)
    except (TypeError, ValueError, RecursionError) as error:
        raise PayloadNotEncodable(
            f"{what}: the data cannot be stored as JSON: {one_line(str(error)).rstrip('.')}.",
            mend="Declare a dataclass, TypedDict, msgspec.Struct or Pydantic model for it. Or push plain data to a job"
            ' without a type: of a model its model_dump(mode="json").',
        ) from error


def _in_json(value: object) -> object:
    try:
        return msgspec.to_builtins(value, order="deterministic", enc_hook=pydantic_models.dumped)
    except TypeError:  # keys of several kinds, or the records in a set, may have no order; what is no JSON fails again
        return msgspec.to_builtins(value, enc_hook=pydantic_models.dumped)


def _must_come_back(plain: object, encoded: bytes, data_type: DataType, what: str, *, is_sorted: bool) -> object:
    """What the worker will get. Refuse data of which the declared type drops or changes anything."""
    try:
        value = _reader_of(data_type).decode(encoded)
        try:
            if _encode_sorted(value) == (encoded if is_sorted else _encode_sorted(plain)):  # mostly no byte differs
                return value
        except TypeError:  # the records in a set may have no order
            pass
        came_back = _in_json(value)
    except (TypeError, UnicodeEncodeError, msgspec.ValidationError) as error:
        raise _misfit(error, what) from (None if isinstance(error, msgspec.ValidationError) else error)
    _compare(plain, came_back, value, "$", what)
    return value


def _with_zones(value: object, encoded: bytes, reader: _Reader, what: str, bytes_max: int) -> bytes:
    """The data, of which each datetime that must has a time zone; and models in their own words."""
    if reader.naive is not None:
        _must_have_zones(reader.naive(value), what)
    return _as_models_write_it(value, encoded, reader, what, bytes_max) if reader.has_models else encoded


def _as_models_write_it(value: object, encoded: bytes, reader: _Reader, what: str, bytes_max: int) -> bytes:
    """The data in the models' own words, so that each run gets what was checked at push.

    A dict may leave to a model what is made anew each time (`default_factory`), and a validator may read one thing and
    write another. It must come back as it was made.
    """
    try:
        text = _encode(_in_json(value))
        if text == encoded:
            return encoded
        again = reader.decode(text)
    except (TypeError, UnicodeEncodeError, ValueError) as error:
        raise _misfit(error, what) from None
    if len(text) > bytes_max:
        raise _too_large(f"takes {len(text):,} bytes", "$", bytes_max, what)
    _must_be_made_again(value, again, "$", what)
    return text


def _misfit(error: Exception, what: str) -> DataInvalid:
    """The data does not fit its type, or the type does not fit JSON."""
    if isinstance(error, msgspec.ValidationError):
        message, path = _problem(error)
        return DataInvalid(f"{what}: {one_line(message).rstrip('.')} at {path}.", path=path)
    return DataInvalid(
        f"{what}: its data type (or a default in it) cannot be stored as JSON: {one_line(str(error))}.",
        mend="Put a union of Pydantic models into a RootModel."
        if "custom type" in str(error)
        else "Use a dataclass, TypedDict or msgspec.Struct of plain values.",
    )


def _problem(error: msgspec.ValidationError) -> tuple[str, str]:
    """What is wrong, and where."""
    message, _, path = str(error).rpartition(" - at `")
    path = one_line(path.rstrip("`")) if message else "$"
    if (said := pydantic_models.problem(error.__cause__)) is not None:
        return said[0], one_line(f"{path}{said[1]}")
    return message or str(error), path


def _reader_of(data_type: DataType) -> _Reader:
    """The reader for a type. Each is made once, and by one thread at a time: what msgspec knows of a type is not whole
    while it is being made, and a second thread that decodes with it meanwhile crashes the process.
    """
    try:
        reader = _readers.get(data_type)
    except TypeError:  # it cannot be a key
        return _made(data_type)
    if reader is None:
        reader = _made(data_type)
        if len(_readers) >= _READERS_MAX:
            _readers.clear()
        _readers[data_type] = reader
    return reader


def _made(data_type: DataType) -> _Reader:
    from protojobs.jobs import naive_datetimes, type_parts  # with msgspec.inspect, as large as the rest of msgspec

    with _making:
        decoder = msgspec.json.Decoder(cast("type[object]", data_type), dec_hook=_of_no_known_type)
        whole = type_parts.type_of(data_type)
    classes = [] if whole is None else type_parts.classes_in(whole)
    for one in classes:
        pydantic_models.refuse_pydantic_dataclass(one)
    naive = naive_datetimes.finder_of(whole)
    read = decoder.decode if naive is None else partial(_read_with_zones, decoder.decode, naive)
    return _Reader(decoder.decode, read, naive, has_models=whole is None or any(map(is_model, classes)))


def _read_with_zones(decode: Callable[[bytes | str], object], naive: Finder, text: bytes | str) -> object:
    value = decode(text)
    _must_have_zones(naive(value), "the data")
    return value


def _must_have_zones(naive: Iterator[tuple[str, datetime]], what: str) -> None:
    """Refuse a datetime without a zone, as `later` does: the worker's machine would guess another moment."""
    for path, moment in naive:
        raise DataInvalid(
            f"{what}: {path} ({moment.isoformat()}) has no time zone, so its moment is a guess.",
            path=path,
            mend="Use datetime.now(timezone.utc) or give tzinfo=; in JSON write 2030-01-31T12:00:00Z. For a time on"
            " the wall wherever it is read declare Annotated[datetime, msgspec.Meta(tz=False)].",
        )


def _of_no_known_type(kind: type[object], value: object) -> object:
    """What is declared as something that msgspec does not know: an abstract type, or one that nothing is made into."""
    if is_model(kind):
        return pydantic_models.read(kind, value)
    if isinstance(value, typing.get_origin(kind) or kind):
        return value
    raise TypeError(
        f"nothing can be read into a {kind.__name__} (declare a dataclass, TypedDict or msgspec.Struct, or no type)"
    )


def _left_of_plain(value: Any, depth: int, left: int) -> int:  # noqa: ANN401, C901  (a call for each value would be felt)
    """How many of `left` values are left behind this one, if JSON holds all of it as it is. Less than 0 means no more
    than that the others must look, who say why not.

    Of texts it says nothing: the encoder itself refuses half of a surrogate pair.
    """
    kind = type(value)  # pyright: ignore[reportUnknownVariableType]  (that is the question)
    if kind in _ALWAYS_PLAIN:
        return left
    if kind is int:
        return left if _INT_MIN <= value <= _INT_MAX else -1
    if kind is float:
        return left if math.isfinite(value) else -1
    if kind is dict and _KEYS.issuperset(map(type, value)):
        items = value.values()
    elif kind is list or kind is tuple:
        items = value
    else:
        return -1
    if depth >= DEPTH_MAX:
        return -1
    left -= len(items)
    if left < 0 or _ALWAYS_PLAIN.issuperset(map(type, items)):
        return left
    for item in items:
        its_kind = type(item)  # pyright: ignore[reportUnknownVariableType]  (as above)
        if its_kind in _ALWAYS_PLAIN or (its_kind is int and _INT_MIN <= item <= _INT_MAX):
            continue
        left = _left_of_plain(item, depth + 1, left)
        if left < 0:
            return left
    return left


def _must_be_small(data: object, what: str, bytes_max: int) -> None:
    """Refuse data that would have no end, before anybody walks through it: a list that is in the data twice is stored
    twice, and forty lists, each of which holds the one before it twice, are a million million.
    """
    left = bytes_max // 2
    if _left(data, 0, left) >= 0:
        return
    for place, part, _ in () if isinstance(data, set | frozenset) else _parts(data, data, "$"):
        left = _left(part, 1, left - 1)
        if left == _DEEP:
            raise PayloadNotEncodable(f"{what}: {place} is nested more than {DEPTH_MAX} deep.", path=place)
        if left < 0:
            mend = "What is in the data several times is stored as often: push it once, or a reference to it."
            raise _too_large("takes more than that", place, bytes_max, what, mend)
    raise _too_large("takes more than that", "$", bytes_max, what)


def _left(value: object, depth: int, left: int) -> int:
    """How many of `left` values there may still be behind this one; a text counts as what it takes. Less than 0: none,
    and nothing further is looked at.
    """
    parts = _parts_of(value)
    if parts is None:
        return left - len(value) // 2 if isinstance(value, str | bytes | bytearray) else left
    if depth >= DEPTH_MAX:
        return _DEEP
    left -= len(parts)
    for part in parts if left >= 0 else ():
        kind = type(part)
        if kind is str:
            left -= len(cast("str", part)) // 2
        elif kind not in _NO_TEXTS:
            left = _left(part, depth + 1, left)
        if left < 0:
            return left
    return left


def _parts_of(value: object) -> Collection[object] | None:
    """What stands in a container or an object, a dict's keys too; None for what has no parts."""
    if isinstance(value, dict):
        entries = cast("dict[object, object]", value)
        return [*entries, *entries.values()]
    if isinstance(value, ROWS):
        return cast("Collection[object]", value)
    if is_model(type(value)):
        return list(pydantic_models.parts_of_model(value).values())
    names = attributes(type(value))  # type: ignore[arg-type]  # a class is hashable
    return [getattr(value, name, None) for name in names.values()] if names else None


def _check(value: object, path: str, what: str) -> None:
    """Refuse what JSON would change or cannot hold, naming the place."""
    if value is None or isinstance(value, bool):
        return
    kind = type(value)
    if kind is str:
        try:
            cast("str", value).encode()
        except UnicodeEncodeError:
            raise PayloadNotEncodable(f"{what}: {path} holds half of a surrogate pair.", path=path) from None
    elif kind is int:
        if not _INT_MIN <= cast("int", value) <= _INT_MAX:
            raise PayloadNotEncodable(
                f"{what}: {path} is a whole number beyond 64 bits.", path=path, mend="Send it as text."
            )
    elif kind is float:
        if not math.isfinite(cast("float", value)):
            raise PayloadNotEncodable(f"{what}: {path} is {value}, which JSON does not have.", path=path)
    elif isinstance(value, list | tuple | dict):
        _check_container(cast("list[object] | dict[object, object]", value), path, what)
    else:
        raise _changed(kind, path, what)


def _changed(kind: type, path: str, what: str) -> PayloadNotEncodable:
    return PayloadNotEncodable(
        f"{what}: {path} is a {kind.__module__}.{kind.__qualname__}, which would not come back as it is.",
        path=path,
        mend=f"Declare it: class MyJob(Job[{kind.__name__}]), def my_job(user: {kind.__name__})."
        ' Or push what it dumps: model_dump(mode="json").'
        if hasattr(kind, "model_dump")  # of Pydantic
        else "Push plain data, or declare its type: class MyJob(Job[MyData]), def my_job(day: date).",
    )


def _check_container(value: list[object] | dict[object, object], path: str, what: str) -> None:
    if not isinstance(value, dict):
        for index, item in enumerate(value):
            _check(item, f"{path}[{index}]", what)
        return
    for key, item in value.items():
        if type(key) is not str:
            raise PayloadNotEncodable(
                f"{what}: {path} has the key {shown(key)}, and JSON keys are strings.",
                path=path,
                mend="Use string keys.",
            )
        _check(key, f"{path} (a key)", what)
        _check(item, under(path, key), what)


def _compare(sent: object, came_back: object, made: object, path: str, what: str) -> None:
    """Refuse what the declared type dropped or changed. Keys, and places at an end, that it added are its defaults.

    `made` is what the type has made of it, and `came_back` that as JSON again.
    """
    if is_model(type(made)):  # what it takes for the same is its own affair
        for place in pydantic_models.lost(sent, made, path):
            raise _no_field(place, what)
    elif isinstance(sent, dict) and isinstance(came_back, dict):
        there, parts = cast("dict[str, object]", came_back), by_name(made)
        for key, item in cast("dict[str, object]", sent).items():
            place = under(path, key)
            if key not in there:
                raise _no_field(place, what)
            _compare(item, there[key], parts.get(key), place, what)
    elif isinstance(sent, list | tuple) and isinstance(made, set | frozenset):
        _compare_set(cast("list[object]", sent), cast("set[object]", made), path, what)
    elif isinstance(sent, list | tuple) and isinstance(came_back, list | tuple):
        back = cast("list[object]", came_back)
        rows = _in_rows(made, len(back))
        for index, item in enumerate(cast("list[object]", sent)):
            if index >= len(back):
                raise _no_field(f"{path}[{index}]", what)
            _compare(item, back[index], rows[index], f"{path}[{index}]", what)
    else:
        _compare_one(sent, came_back, made, path, what)  # pyright: ignore[reportUnknownArgumentType]  (narrowed above)


def _compare_one(sent: object, came_back: object, made: object, path: str, what: str) -> None:
    if isinstance(sent, str) and isinstance(came_back, str):
        # Another spelling of the same date, UUID or number: the type has read it. Of a fraction it reads six digits.
        if isinstance(made, datetime | time | timedelta) and _FINE.search(sent):
            raise DataInvalid(f"{what}: {path} is {shown(sent)}, finer than microseconds.", path=path)
    elif sent != came_back or isinstance(sent, bool) != isinstance(came_back, bool):
        raise DataInvalid(f"{what}: {path} would come back as {shown(came_back)} instead of {shown(sent)}.", path=path)


def _compare_set(sent: list[object], made: set[object], path: str, what: str) -> None:
    """As `_compare`, for what has no order and holds each thing once."""
    pairs = [(_in_json(one), one) for one in made]
    known = {_encode_sorted(back) for back, _ in pairs}
    for index, item in enumerate(sent):
        if _encode_sorted(item) not in known:  # spelled otherwise, or without its defaults; few are
            place = f"{path}[{index}]"
            if not any(_fits(item, back, one, place, what) for back, one in pairs[:_SPELLINGS_MAX]):
                raise DataInvalid(f"{what}: {place} would not come back as {shown(item)}.", path=place)


def _fits(sent: object, came_back: object, made: object, path: str, what: str) -> bool:
    try:
        _compare(sent, came_back, made, path, what)
    except DataInvalid:
        return False
    return True


def _no_field(path: str, what: str) -> DataInvalid:
    return DataInvalid(f"{what}: {path} is not a field of the job's data type.", path=path)


def _in_rows(made: object, number: int) -> list[object]:
    """The parts of what comes back as that many places; those of a Struct stand behind its tag."""
    parts = list(cast("list[object]", made)) if isinstance(made, list | tuple) else list(by_name(made).values())
    return [*[None] * (number - len(parts)), *parts]


def _must_be_made_again(sent: object, came_back: object, path: str, what: str) -> None:
    """Refuse an object that comes back as plain JSON, since the declared type says no more there than `Any` or `dict`,
    and one of which JSON leaves something out.

    Whatever is no plain JSON when it comes back is what the declared type wants.
    """
    like = _COMES_FROM.get(type(came_back))
    if like is not None and not isinstance(sent, like):
        raise _changed(type(sent), path, what)
    if isinstance(sent, datetime | time) and isinstance(came_back, datetime | time):
        _must_keep_its_offset(sent, came_back, path, what)
        return
    if is_model(type(sent)):
        _model_must_come_back(sent, came_back, path, what)
        return
    for name in _left_out(type(sent)):  # type: ignore[arg-type]  # a class is hashable
        if getattr(sent, name, None) != getattr(came_back, name, None):
            place = under(path, name)
            raise DataInvalid(f"{what}: {place} is private, and would be left out.", path=place, mend="Rename it.")
    names = attributes(type(sent))  # type: ignore[arg-type]  # a class is hashable
    values: list[object] = [getattr(sent, name, None) for name in names.values()]
    if values and _SCALARS.issuperset(map(type, values)):
        return  # the usual case: a record of what JSON has
    for place, item, other in _parts(sent, came_back, path):
        if type(item) not in _SCALARS:
            _must_be_made_again(item, other, place, what)


def _must_keep_its_offset(sent: datetime | time, came_back: datetime | time, path: str, what: str) -> None:
    if on_the_clock(sent) != on_the_clock(came_back):
        raise DataInvalid(
            f"{what}: {path} is {sent.isoformat()}, and JSON keeps offsets from UTC of whole minutes only.",
            path=path,
            mend="Push it in UTC: moment.astimezone(timezone.utc).",
        )


def _model_must_come_back(sent: object, came_back: object, path: str, what: str) -> None:
    for place, why, mend in pydantic_models.changes(sent, came_back, path):
        raise DataInvalid(f"{what}: {place} {why}.", path=place, mend=mend)


def _parts(sent: object, came_back: object, path: str) -> Iterator[tuple[str, object, object]]:
    """Each part of what was sent, with its place and what came back of it."""
    if isinstance(sent, ROWS):
        has_order = not isinstance(came_back, set | frozenset)
        pairs = zip(_in_order(sent, has_order), _in_order(came_back, has_order), strict=False)
        yield from ((f"{path}[{index}]", item, other) for index, (item, other) in enumerate(pairs))
        return
    there = by_name(came_back)
    for name, item in by_name(sent).items():
        if name in there:
            yield under(path, shown(name) if type(name) is not str else name), item, there[name]
        elif type(name) is not str:
            yield f"{path} (a key)", name, ""  # as its text


def _in_order(value: object, has_order: bool) -> list[object]:
    items = list(cast("list[object]", value)) if isinstance(value, ROWS) else []
    if has_order:
        return items
    by_text = {_encode(_in_json(item)): item for item in items}
    return [by_text[text] for text in sorted(by_text)]


@lru_cache(maxsize=KINDS_MAX)
def _left_out(kind: type[object]) -> tuple[str, ...]:
    """The attributes of a class of attrs that msgspec takes for its own business."""
    return tuple(field.name for field in getattr(kind, "__attrs_attrs__", ()) if field.name.startswith("_"))
