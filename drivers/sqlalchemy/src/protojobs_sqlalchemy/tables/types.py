"""Column types: how ids, names, times and texts are kept by each database, and how they look to Python.

The migrations use these types too, so a change of what one of them *stores* needs a migration of its own.

SQLite takes any value into any column, so a foreign hand may leave text where a number belongs. Reading never fails for
it: what a type cannot read comes out as a `Misread` that stands for it and knows what is stored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from math import ceil, isfinite
from typing import Any, TypeVar, cast

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Dialect,
    Double,
    Integer,
    SmallInteger,
    String,
    Text,
    Uuid,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.visitors import InternalTraversal
from sqlalchemy.types import TypeDecorator, TypeEngine, UserDefinedType

__all__ = [
    "TIMES_FROM",
    "TIMES_UNTIL",
    "LongText",
    "Misread",
    "Name",
    "Number",
    "Small",
    "StoredId",
    "StoredTime",
    "TimeOrFraction",
    "Whole",
    "are_job_ids",
    "from_microseconds",
    "is_job_id",
    "job_ids",
    "read_time",
    "stored_value",
    "to_microseconds",
    "within_calendar",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FLOATS_UNTIL = 2**52  # in the year 2112; up to twice that a float of seconds, rounded to microseconds, is exact

is_job_id = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch
"""A UUID in its one canonical spelling, since two databases keep it as 16 bytes."""


_HEX_DIGITS = b"0123456789abcdef"


def are_job_ids(joined: str, number: int) -> bool:
    """Whether `joined` is so many UUIDs in that spelling, with commas between."""
    if len(joined) != 37 * number - 1 or joined[36::37] != "," * (number - 1):
        return False
    if any(joined[place::37] != "-" * number for place in (8, 13, 18, 23)):
        return False
    # All that is no digit has been found in its place, if there is no more of it.
    return len(joined.encode("ascii", "replace").translate(None, _HEX_DIGITS)) == 5 * number - 1


def job_ids(ids: Iterable[str]) -> list[str]:
    """Those that can be in the store at all, each once; a job of any other spelling is simply missing."""
    return [job_id for job_id in dict.fromkeys(ids) if is_job_id(job_id)]


def to_microseconds(moment: datetime) -> int:
    """Microseconds since 1970, exactly (a float would lose the last digits)."""
    return (moment - _EPOCH) // _MICROSECOND


def from_microseconds(count: int) -> datetime:
    """The aware UTC datetime that is `count` microseconds after 1970."""
    if 0 <= count < _FLOATS_UNTIL:
        return datetime.fromtimestamp(count / 1e6, UTC)  # half the time
    return _EPOCH + timedelta(microseconds=count)


class Misread:
    """Of a value that no driver writes: something of the column's type that stands for it; `stored` is that value."""

    stored: object = None


def stored_value(value: object) -> object:
    """What is stored, of a value as it was read."""
    return value.stored if isinstance(value, Misread) else value


class _NoTime(Misread, datetime):
    """Behind all times, as SQLite sorts what is no number."""


class _NoText(Misread, str):
    """As much of it as is text."""


class _NoWhole(Misread, int):
    """0."""


class _NoNumber(Misread, float):
    """0.0."""


# Far enough from the ends of datetime's calendar to be shown in any time zone.
_FIRST, _LAST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
TIMES_FROM, TIMES_UNTIL = to_microseconds(_FIRST), to_microseconds(_LAST)


def read_time(value: object) -> datetime:
    """The moment that a column of times holds as a datetime, or as microseconds since 1970."""
    if isinstance(value, datetime):
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, int) and TIMES_FROM <= value <= TIMES_UNTIL:
        return from_microseconds(value)
    misread = _NoTime(_LAST.year, _LAST.month, _LAST.day, tzinfo=UTC)
    misread.stored = value
    return misread


def _read_name(value: object) -> str:
    if isinstance(value, str):
        return value
    misread = _NoText(value.decode(errors="backslashreplace") if isinstance(value, bytes) else value)
    misread.stored = value
    return misread


def _read_text(value: object) -> str:
    if isinstance(value, bytes):
        with suppress(UnicodeDecodeError):
            return value.decode()
    return _read_name(value)


T = TypeVar("T")


def _of(dialect: Dialect, by_database: Mapping[str, T]) -> T:
    """What there is for the database of this dialect, which may have reached a MariaDB under MySQL's name."""
    name = "mariadb" if getattr(dialect, "is_mariadb", False) else dialect.name
    return by_database.get(name, by_database["sqlite"])  # to print a statement SQLAlchemy has a dialect of none


class _MariaDBUuid(UserDefinedType[str]):
    """MariaDB's own 16-byte type; reads and writes as text."""

    cache_ok = True

    def get_col_spec(self, **_options: object) -> str:
        """For CREATE TABLE."""
        return "UUID"


def _mysql(kind: str, *arguments: object, **options: object) -> TypeEngine[Any]:
    from sqlalchemy.dialects import mysql  # which takes megabytes

    made: TypeEngine[Any] = getattr(mysql, kind)(*arguments, **options)
    return made


# They compare byte by byte, trailing spaces included: `utf8mb4_bin` would take 'emails ' for 'emails'.
_ON_MARIADB = {"charset": "utf8mb4", "collation": "utf8mb4_nopad_bin"}
_ON_MYSQL = {"charset": "utf8mb4", "collation": "utf8mb4_0900_bin"}

_IDS: Mapping[str, Callable[[], TypeEngine[Any]]] = {
    "sqlite": lambda: String(36),
    "postgresql": lambda: Uuid(as_uuid=False),
    "mariadb": _MariaDBUuid,
    "mysql": lambda: _mysql("CHAR", 36, charset="ascii", collation="ascii_bin"),
}
_NAMES: Mapping[str, Callable[[int], TypeEngine[Any]]] = {
    "sqlite": lambda _: Text(),
    "postgresql": lambda _: Text(collation="C"),
    "mariadb": lambda length: _mysql("VARCHAR", length, **_ON_MARIADB),
    "mysql": lambda length: _mysql("VARCHAR", length, **_ON_MYSQL),
}
_TEXTS: Mapping[str, Callable[[], TypeEngine[Any]]] = {
    "sqlite": Text,
    "postgresql": Text,
    "mariadb": lambda: _mysql("LONGTEXT", **_ON_MARIADB),
    "mysql": lambda: _mysql("LONGTEXT", **_ON_MYSQL),
}


class StoredId(TypeDecorator[str]):
    """A UUID that is text in Python: 16 bytes on PostgreSQL and MariaDB, 36 characters on SQLite and MySQL."""

    impl = String(36)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        """What this database keeps it as."""
        return dialect.type_descriptor(_of(dialect, _IDS)())

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """From the database."""
        return None if value is None else _read_name(value)


class Name(TypeDecorator[str]):
    """A short text that is compared byte by byte: `Emails`, `émails`, `emails` and `emails ` are four names."""

    impl = String
    cache_ok = True

    def __init__(self, length: int = 100) -> None:
        super().__init__(length)
        self.length = length

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        """What this database keeps it as."""
        return dialect.type_descriptor(_of(dialect, _NAMES)(self.length))

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """From the database."""
        return None if value is None else _read_name(value)


class LongText(TypeDecorator[str]):
    """Text of any length, such as a job's data."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        """What this database keeps it as."""
        return dialect.type_descriptor(_of(dialect, _TEXTS)())

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """From the database."""
        return None if value is None else _read_text(value)


class Whole(TypeDecorator[int]):
    """A whole number."""

    impl = Integer
    cache_ok = True

    def process_result_value(self, value: int | None, dialect: Dialect) -> int | None:
        """From the database."""
        if value is None or isinstance(value, int):
            return value
        misread = _NoWhole()
        misread.stored = value
        return misread


class Small(Whole):
    """A whole number of 16 bits."""

    impl = SmallInteger
    cache_ok = True


class Number(TypeDecorator[float]):
    """A number of seconds, or a share."""

    impl = Double
    cache_ok = True

    def process_result_value(self, value: float | None, dialect: Dialect) -> float | None:
        """From the database."""
        if value is None or isinstance(value, int | float):
            return value
        misread = _NoNumber()
        misread.stored = value
        return misread


_SQL_FIRST, _SQL_LAST = "timestamptz '0001-01-02 00:00+00'", "timestamptz '9999-12-30 00:00+00'"


class _Readable(ColumnElement[datetime]):
    """A time as it is read. PostgreSQL's calendar is longer than Python's: `infinity` is read as that one's end."""

    inherit_cache = True
    _traverse_internals = [("time", InternalTraversal.dp_clauseelement)]

    def __init__(self, time: ColumnElement[datetime]) -> None:
        self.time = time
        self.type = time.type


@compiles(_Readable)
def _as_it_is(element: _Readable, compiler: SQLCompiler, **options: object) -> str:
    return compiler.process(element.time, **options)


@compiles(_Readable, "postgresql")
def _within_the_calendar(element: _Readable, compiler: SQLCompiler, **options: object) -> str:
    time = compiler.process(element.time, **options)  # may be NULL, which greatest() and least() pass over
    return (
        f"CASE WHEN {time} > {_SQL_LAST} THEN {_SQL_LAST} WHEN {time} < {_SQL_FIRST} THEN {_SQL_FIRST} ELSE {time} END"
    )


def within_calendar(time: str) -> str:
    """PostgreSQL's SQL for a time, not NULL, that Python can read."""
    return f"greatest(least({time}, {_SQL_LAST}), {_SQL_FIRST})"


_TIMES: Mapping[str, Callable[[], TypeEngine[Any]]] = {
    "sqlite": BigInteger,
    "postgresql": lambda: DateTime(timezone=True),
    "mariadb": lambda: _mysql("DATETIME", fsp=6),
    "mysql": lambda: _mysql("DATETIME", fsp=6),
}


def _without_zone(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)


_TIME_TO: Mapping[str, Callable[[datetime], datetime | int]] = {
    "sqlite": to_microseconds,
    "postgresql": lambda moment: moment.astimezone(UTC),
    "mariadb": _without_zone,
    "mysql": _without_zone,
}


class StoredTime(TypeDecorator[datetime]):
    """An aware UTC datetime, to the microsecond.

    timestamptz on PostgreSQL, DATETIME(6) holding UTC on MariaDB and MySQL, whole microseconds since 1970 on SQLite
    (8 bytes instead of 26, exact, and compared as numbers): `datetime(created_at / 1000000, 'unixepoch')` shows one.
    """

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[datetime] | TypeEngine[int]:
        """What this database keeps it as."""
        return dialect.type_descriptor(_of(dialect, _TIMES)())

    def column_expression(self, column: ColumnElement[datetime]) -> ColumnElement[datetime]:
        """What is read."""
        return _Readable(column)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | int | None:
        """To the database."""
        return None if value is None else _of(dialect, _TIME_TO)(value)

    def process_result_value(self, value: datetime | int | None, dialect: Dialect) -> datetime | None:
        """From the database."""
        return None if value is None else read_time(value)


class TimeOrFraction(StoredTime):
    """A stored time. SQLite keeps fractions of a microsecond too, as arithmetic by a foreign hand leaves them."""

    cache_ok = True

    def process_result_value(self, value: datetime | float | None, dialect: Dialect) -> datetime | None:
        """From the database."""
        if isinstance(value, float) and isfinite(value):
            return super().process_result_value(ceil(value), dialect)
        return super().process_result_value(cast("datetime | int | None", value), dialect)
