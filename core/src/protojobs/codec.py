"""A job's data <-> the text that the store keeps. What would not come back as it went in is refused at push.

JSON loses things in silence: NaN becomes null, a date becomes text, `{1: ...}` becomes `{"1": ...}`, a misspelt key of
a typed record is dropped. So `encode` looks at the data first, decodes what it wrote, and compares.
"""

from __future__ import annotations

import math
import threading
import typing
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import zip_longest
from typing import Any, TypeAlias, cast

import msgspec

from protojobs.errors import DataInvalid, PayloadNotDecodable, PayloadNotEncodable, PayloadTooLarge, one_line, shown

__all__ = ["DEPTH_MAX", "PAYLOAD_BYTES_MAX", "decode", "encode"]

PAYLOAD_BYTES_MAX = (
    1024 * 1024
)  # default of the setting `payload_bytes_max`; a store holds references to more, not blobs
DEPTH_MAX = 100  # nested lists and objects; deeper data is a mistake or an attack, and would exhaust the stack
_KEY_MAX, _PATH_MAX = 100, 300  # characters of a key, and of a path, in a message
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
_ROWS: tuple[type, ...] = (list, tuple, set, frozenset)
_encode = msgspec.json.Encoder().encode
_encode_in_order = msgspec.json.Encoder(order="deterministic").encode  # as to_builtins orders the keys of typed data
_encode_sorted = msgspec.json.Encoder(order="sorted").encode
_decode_any = msgspec.json.Decoder().decode
_DECODERS_MAX = 1_024
_decoders: dict[DataType, msgspec.json.Decoder[object]] = {}
_making = threading.Lock()


def encode(data: object, data_type: DataType, *, what: str, bytes_max: int = PAYLOAD_BYTES_MAX) -> str:
    """`data` as JSON text. Raises a PayloadError that names the place in the data; `what` names the job."""
    is_plain = _is_plain(data, 0)
    plain = data if is_plain or data_type is None else _as_builtins(data, what)
    if plain is not data or not is_plain:
        _check(plain, "$", what, 0)
    try:
        encoded = (_encode if data_type is None or plain is not data else _encode_in_order)(plain)
    except UnicodeEncodeError:
        _check(plain, "$", what, 0)  # names the place
        raise
    if len(encoded) > bytes_max:
        raise _too_large(len(encoded), bytes_max, what)
    if data_type is not None:
        came_back = _must_come_back(plain, encoded, data_type, what)
        if not is_plain:
            _must_be_made_again(data, came_back, "$", what)
    return encoded.decode()


def decode(text: str, data_type: DataType, *, what: str) -> object:
    """The data as the job wants it. Raises PayloadNotDecodable when the text is not (or no longer) that."""
    try:
        return _decode_any(text) if data_type is None else _decoder_of(data_type).decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError, TypeError) as error:
        raise PayloadNotDecodable(
            f"{what}: the stored data does not decode: {one_line(str(error))}.",
            mend="It was written by another version of the job, or changed in the store.",
        ) from error


def _too_large(size: int, bytes_max: int, what: str) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"{what}: the data takes {size:,} bytes, and at most {bytes_max:,} are allowed.",
        mend="Store the large part elsewhere and push a reference to it, or raise payload_bytes_max.",
    )


def _as_builtins(data: object, what: str) -> object:
    try:
        return msgspec.to_builtins(data, order="deterministic")
    except (TypeError, ValueError, RecursionError) as error:
        with suppress(TypeError, ValueError, RecursionError):
            return msgspec.to_builtins(data)  # keys of several kinds have no order; `_check` names their place
        raise PayloadNotEncodable(
            f"{what}: the data cannot be stored as JSON: {one_line(str(error)).rstrip('.')}.",
            mend="Declare a dataclass, TypedDict or msgspec.Struct for it. Or push plain data to a job without a type: "
            'of a Pydantic model its model_dump(mode="json").',
        ) from error


def _must_come_back(plain: object, encoded: bytes, data_type: DataType, what: str) -> object:
    """What the worker will get. Refuse data of which the declared type drops or changes anything."""
    try:
        value = _decoder_of(data_type).decode(encoded)
        if _encode_sorted(value) == _encode_sorted(plain):  # the usual case: not a byte differs
            return value
        came_back = msgspec.to_builtins(value, order="deterministic")
    except (TypeError, UnicodeEncodeError) as error:
        raise DataInvalid(
            f"{what}: its data type (or a default in it) cannot be stored as JSON: {one_line(str(error))}.",
            mend="Use a dataclass, TypedDict or msgspec.Struct of plain values.",
        ) from error
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `")
        path = one_line(path.rstrip("`")) or "$"
        raise DataInvalid(f"{what}: {one_line(message)} at {path}.", path=path) from None
    _compare(plain, came_back, "$", what)
    return value


def _decoder_of(data_type: DataType) -> msgspec.json.Decoder[object]:
    """The decoder for a type. Each is made once, and by one thread at a time: what msgspec knows of a type is not whole
    while it is being made, and a second thread that decodes with it meanwhile crashes the process.
    """
    try:
        known = _decoders.get(data_type)
    except TypeError:  # it cannot be a key
        return _made(data_type)
    if known is None:
        known = _made(data_type)
        if len(_decoders) >= _DECODERS_MAX:
            _decoders.clear()
        _decoders[data_type] = known
    return known


def _made(data_type: DataType) -> msgspec.json.Decoder[object]:
    with _making:
        return msgspec.json.Decoder(cast("type[object]", data_type), dec_hook=_of_no_known_type)


def _of_no_known_type(kind: type[object], value: object) -> object:
    """What is declared as something that msgspec does not know: an abstract type, or one that nothing is made into."""
    if isinstance(value, typing.get_origin(kind) or kind):
        return value
    raise TypeError(
        f"nothing can be read into a {kind.__name__} (declare a dataclass, TypedDict or msgspec.Struct, or no type)"
    )


def _is_plain(value: Any, depth: int) -> bool:  # noqa: ANN401  (a cast would be a call for each value)
    """Whether JSON holds all of this as it is. False means no more than that `_check` must look, which says why not.

    Of texts it says nothing: the encoder itself refuses half of a surrogate pair.
    """
    kind = type(value)  # pyright: ignore[reportUnknownVariableType]  (that is the question)
    if kind in _ALWAYS_PLAIN:
        return True
    if kind is int:
        return bool(_INT_MIN <= value <= _INT_MAX)
    if kind is float:
        return math.isfinite(value)
    if kind is dict and _KEYS.issuperset(map(type, value)):
        items = value.values()
    elif kind is list or kind is tuple:
        items = value
    else:
        return False
    if depth >= DEPTH_MAX:
        return False
    if _ALWAYS_PLAIN.issuperset(map(type, items)):
        return True
    for item in items:  # not all(), whose generator would be called for each of them
        if type(item) not in _ALWAYS_PLAIN and not _is_plain(item, depth + 1):
            return False
    return True


def _check(value: object, path: str, what: str, depth: int) -> None:
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
        _check_container(cast("list[object] | dict[object, object]", value), path, what, depth + 1)
    else:
        raise _changed(kind, path, what)


def _changed(kind: type, path: str, what: str) -> PayloadNotEncodable:
    return PayloadNotEncodable(
        f"{what}: {path} is a {kind.__module__}.{kind.__qualname__}, which would not come back as it is.",
        path=path,
        mend="Push plain data, or declare its type: class MyJob(Job[MyData]), def my_job(day: date).",
    )


def _check_container(value: list[object] | dict[object, object], path: str, what: str, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise PayloadNotEncodable(f"{what}: the data is nested more than {DEPTH_MAX} deep.", path=path)
    if not isinstance(value, dict):
        for index, item in enumerate(value):
            _check(item, f"{path}[{index}]", what, depth)
        return
    for key, item in value.items():
        if type(key) is not str:
            raise PayloadNotEncodable(
                f"{what}: {path} has the key {shown(key)}, and JSON keys are strings.",
                path=path,
                mend="Use string keys.",
            )
        _check(key, f"{path} (a key)", what, depth)
        _check(item, _under(path, key), what, depth)


def _under(path: str, key: str) -> str:
    """The place of that key. Keys are whatever somebody sent: on one line, and no longer than a sentence can bear."""
    if len(path) > _PATH_MAX:
        path = f"{path[: _PATH_MAX // 2]}...{path[-_PATH_MAX // 2 :]}"
    return f"{path}.{one_line(key, _KEY_MAX)}"


def _compare(sent: object, came_back: object, path: str, what: str) -> None:
    """Refuse what the declared type dropped or changed. Keys that it added are its defaults."""
    if isinstance(sent, dict) and isinstance(came_back, dict):
        there = cast("dict[str, object]", came_back)
        for key, item in cast("dict[str, object]", sent).items():
            place = _under(path, key)
            if key not in there:
                raise DataInvalid(f"{what}: {place} is not a field of the job's data type.", path=place)
            _compare(item, there[key], place, what)
    elif isinstance(sent, list | tuple) and isinstance(came_back, list | tuple):
        pairs = zip_longest(cast("list[object]", sent), cast("list[object]", came_back))
        for index, (item, other) in enumerate(pairs):
            _compare(item, other, f"{path}[{index}]", what)
    elif isinstance(sent, str) and isinstance(came_back, str):
        return  # another spelling of the same date, UUID or number: the type has read it
    elif sent != came_back or isinstance(sent, bool) != isinstance(came_back, bool):
        back = shown(came_back)
        raise DataInvalid(f"{what}: {path} would come back as {back} instead of {shown(sent)}.", path=path)  # pyright: ignore[reportUnknownArgumentType]


def _must_be_made_again(sent: object, came_back: object, path: str, what: str) -> None:
    """Refuse an object that comes back as plain JSON, since the declared type says no more there than `Any` or `dict`.

    Whatever is no plain JSON when it comes back is what the declared type wants.
    """
    like = _COMES_FROM.get(type(came_back))
    if like is not None and not isinstance(sent, like):
        raise _changed(type(sent), path, what)
    for place, item, other in _parts(sent, came_back, path):
        if type(item) not in _SCALARS:
            _must_be_made_again(item, other, place, what)


def _parts(sent: object, came_back: object, path: str) -> Iterator[tuple[str, object, object]]:
    """Each part of what was sent, with its place and what came back of it."""
    if isinstance(sent, _ROWS):
        pairs = zip(_in_order(sent), _in_order(came_back), strict=False)
        yield from ((f"{path}[{index}]", item, other) for index, (item, other) in enumerate(pairs))
        return
    there = _by_name(came_back)
    for name, item in _by_name(sent).items():
        if name in there:
            yield _under(path, str(name)), item, there[name]
        elif type(name) is not str:
            yield f"{path} (a key)", name, ""  # as its text


def _in_order(value: object) -> list[object]:
    if isinstance(value, set | frozenset):
        return sorted(cast("set[object]", value), key=_encode_in_order)
    return list(cast("list[object]", value)) if isinstance(value, list | tuple) else []


def _by_name(value: object) -> dict[object, object]:
    """The parts of an object by the names that they have in JSON."""
    if isinstance(value, dict):
        return cast("dict[object, object]", value)
    names = _attributes(type(value))  # type: ignore[arg-type]  # a class is hashable
    return {name: getattr(value, attribute, None) for name, attribute in names.items()}


@lru_cache(maxsize=_DECODERS_MAX)
def _attributes(kind: type[object]) -> dict[str, str]:
    """The names in JSON of what an instance holds, and those of its attributes."""
    of_attrs: list[str] = [field.name for field in getattr(kind, "__attrs_attrs__", ())]
    names: Iterable[str] = getattr(kind, "__dataclass_fields__", of_attrs)
    if issubclass(kind, msgspec.Struct):
        return {field.encode_name: field.name for field in msgspec.structs.fields(kind)}
    return {name: name for name in names}
