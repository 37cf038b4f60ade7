"""Redaction: fields that are hidden before data is shown, searched or sent, and kept when it is edited."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TypeVar, cast

import msgspec
from msgspec.structs import replace

from protojobs.errors import DataInvalid
from protojobs.port.records import FailedJob, JobRecord
from protojobs.port.schedules import Schedule

__all__ = ["HIDDEN", "READ_CHARS_MAX", "Redaction"]

HIDDEN = "[hidden]"
UNREADABLE = '"[hidden: no JSON in which fields could be told apart]"'
TOO_LONG = '"[hidden: too long]"'
READ_CHARS_MAX = 64 * 1024  # of the data of each job in a list, where fields are to be hidden or searched
_encode = msgspec.json.Encoder(order="sorted").encode
_T = TypeVar("_T", JobRecord, FailedJob, Schedule)


class Redaction:
    """What the patterns name: `password` is a field of that name anywhere, `*.token` or `user.*.pin` a path.

    `*` stands for anything, in any case of letters. Positions in lists do not count.
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self.patterns = tuple(pattern.casefold() for pattern in patterns)

        self.chars_max = READ_CHARS_MAX  # to ask for, of the data of each job in a list

    def __bool__(self) -> bool:
        return bool(self.patterns)

    def of(self, record: _T) -> _T:
        """The record with its data (and meta) redacted. Text that is no JSON is hidden whole."""
        if not self.patterns:
            return record
        hidden = replace(record, data=self.text(record.data))
        if isinstance(hidden, JobRecord) and hidden.meta:
            return replace(hidden, meta=self.text(hidden.meta))
        return hidden

    def listed(self, record: _T, chars_max: int | None) -> _T:
        """The same for a list: the data cut to `chars_max` characters, after the secrets are out."""
        if chars_max is None:
            return self.of(record)
        if self.patterns and len(record.data) >= READ_CHARS_MAX:  # perhaps cut already
            record = replace(record, data=TOO_LONG)
        seen = self.of(record)
        return seen if len(seen.data) <= chars_max else replace(seen, data=seen.data[:chars_max])

    def text(self, text: str) -> str:
        """JSON text, redacted."""
        if not self.patterns:
            return text
        try:
            value = cast("object", msgspec.json.decode(text))
            return msgspec.json.encode(self._hidden(value, "")).decode()
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return UNREADABLE

    def restored(self, edited: object, original: object) -> object:
        """Edited data with the hidden fields as they were. Raises DataInvalid where they cannot be told."""
        return self._restored(edited, original, "") if self.patterns else edited

    def is_hidden(self, key: str, path: str) -> bool:
        """Whether a field of that name, at that dotted path, is to be hidden."""
        return any(fnmatchcase(path if "." in pattern else key, pattern) for pattern in self.patterns)

    def _hidden(self, value: object, path: str) -> object:
        if isinstance(value, list):
            return [self._hidden(item, path) for item in cast("list[object]", value)]
        if not isinstance(value, dict):
            return value
        fields: dict[str, object] = {}
        for key, item in cast("dict[str, object]", value).items():
            place = _under(path, key)
            fields[key] = HIDDEN if self.is_hidden(key.casefold(), place) else self._hidden(item, place)
        return fields

    def _restored(self, edited: object, original: object, path: str, *, is_alike: bool = False) -> object:
        """`is_alike`: the two differ in hidden fields only, so that what stands at the same place belongs together."""
        if isinstance(edited, list):
            items = cast("list[object]", edited)
            known = cast("list[object]", original) if isinstance(original, list) else [None] * len(items)
            if isinstance(original, list) and not is_alike:
                known = self._partners(items, known, path)
            return [self._restored(item, was, path, is_alike=True) for item, was in zip(items, known, strict=True)]
        if not isinstance(edited, dict):
            return edited
        before = cast("dict[str, object]", original) if isinstance(original, dict) else {}
        fields: dict[str, object] = {}
        for key, item in cast("dict[str, object]", edited).items():
            place = _under(path, key)
            if not self.is_hidden(key.casefold(), place):
                fields[key] = self._restored(item, before.get(key), place, is_alike=is_alike)
            elif item != HIDDEN:
                fields[key] = self._restored(item, None, place)  # written anew: nothing in it can be an old one
            elif key in before:
                fields[key] = before[key]
            else:
                raise DataInvalid(
                    f"$.{place} is hidden from you, and where it belongs now cannot be told.",
                    path=f"$.{place}",
                    mend="Leave it where it is, in a list also all that stands beside it, or write its value.",
                )
        return fields

    def _partners(self, items: Sequence[object], known: Sequence[object], path: str) -> list[object]:
        """For each item what it was before: the only one that looks the same. Of several the one at its place, if all
        of them have stayed. None where that cannot be told: a place alone says nothing, once something was put in.
        """
        before = self._places(known, path)
        partners: list[object] = [None] * len(items)
        for look, places in self._places(items, path).items():
            were = before.get(look, [])
            if places != were and any(known[place] != known[were[0]] for place in were):
                continue
            for place in places if were else ():
                partners[place] = known[place if places == were else were[0]]
        return partners

    def _places(self, values: Sequence[object], path: str) -> dict[bytes, list[int]]:
        """Where the values stand, by how they look without their hidden fields."""
        places: dict[bytes, list[int]] = {}
        for place, value in enumerate(values):
            places.setdefault(_encode(self._hidden(value, path)), []).append(place)
        return places


def _under(path: str, key: str) -> str:
    return f"{path}.{key.casefold()}" if path else key.casefold()
