"""Column types: how ids, names, times and texts are kept by each database, and how they look to Python.

The migrations use these types too, so a change of what one of them *stores* needs a migration of its own.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import BigInteger, DateTime, Dialect, String, Text, Uuid
from sqlalchemy.types import TypeDecorator, TypeEngine, UserDefinedType

__all__ = ["LongText", "Name", "StoredId", "StoredTime", "from_microseconds", "to_microseconds"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FLOATS_UNTIL = 2**52  # in the year 2112; up to twice that a float of seconds, rounded to microseconds, is exact


def to_microseconds(moment: datetime) -> int:
    """Microseconds since 1970, exactly (a float would lose the last digits)."""
    return (moment - _EPOCH) // _MICROSECOND


def from_microseconds(count: int) -> datetime:
    """The aware UTC datetime that is `count` microseconds after 1970."""
    if 0 <= count < _FLOATS_UNTIL:
        return datetime.fromtimestamp(count / 1e6, UTC)  # half the time
    return _EPOCH + timedelta(microseconds=count)


def _is_mariadb(dialect: Dialect) -> bool:
    return bool(getattr(dialect, "is_mariadb", False))


def _binary_collation(dialect: Dialect) -> str:
    """Compare byte by byte, trailing spaces included: `utf8mb4_bin` would take 'emails ' for 'emails'."""
    return "utf8mb4_nopad_bin" if _is_mariadb(dialect) else "utf8mb4_0900_bin"


class _MariaDBUuid(UserDefinedType[str]):
    """MariaDB's own 16-byte type; reads and writes as text."""

    cache_ok = True

    def get_col_spec(self, **_options: object) -> str:
        """For CREATE TABLE."""
        return "UUID"


class StoredId(TypeDecorator[str]):
    """A UUID that is text in Python: 16 bytes on PostgreSQL and MariaDB, 36 characters on SQLite and MySQL."""

    impl = String(36)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        """What this database keeps it as."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(Uuid(as_uuid=False))
        if _is_mariadb(dialect):
            return dialect.type_descriptor(_MariaDBUuid())
        if dialect.name == "mysql":
            from sqlalchemy.dialects import mysql

            return dialect.type_descriptor(mysql.CHAR(36, charset="ascii", collation="ascii_bin"))
        return dialect.type_descriptor(String(36))


class Name(TypeDecorator[str]):
    """A short text that is compared byte by byte: `Emails`, `émails`, `emails` and `emails ` are four names."""

    impl = String
    cache_ok = True

    def __init__(self, length: int = 100) -> None:
        super().__init__(length)
        self.length = length

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        """What this database keeps it as."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(Text(collation="C"))
        if dialect.name in ("mysql", "mariadb"):
            from sqlalchemy.dialects import mysql

            collation = _binary_collation(dialect)
            return dialect.type_descriptor(mysql.VARCHAR(self.length, charset="utf8mb4", collation=collation))
        return dialect.type_descriptor(Text())


class LongText(TypeDecorator[str]):
    """Text of any length, such as a job's data."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        """What this database keeps it as."""
        if dialect.name in ("mysql", "mariadb"):
            from sqlalchemy.dialects import mysql

            return dialect.type_descriptor(mysql.LONGTEXT(charset="utf8mb4", collation=_binary_collation(dialect)))
        return dialect.type_descriptor(Text())


class StoredTime(TypeDecorator[datetime]):
    """An aware UTC datetime, to the microsecond.

    timestamptz on PostgreSQL, DATETIME(6) holding UTC on MariaDB and MySQL, whole microseconds since 1970 on SQLite
    (8 bytes instead of 26, exact, and compared as numbers): `datetime(created_at / 1000000, 'unixepoch')` shows one.
    """

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[datetime] | TypeEngine[int]:
        """What this database keeps it as."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(DateTime(timezone=True))
        if dialect.name in ("mysql", "mariadb"):
            from sqlalchemy.dialects import mysql

            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(BigInteger())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | int | None:
        """To the database."""
        if value is None:
            return None
        if dialect.name == "sqlite":
            return to_microseconds(value)
        value = value.astimezone(UTC)
        return value if dialect.name == "postgresql" else value.replace(tzinfo=None)

    def process_result_value(self, value: datetime | int | None, dialect: Dialect) -> datetime | None:
        """From the database."""
        if value is None:
            return None
        if isinstance(value, int):
            return from_microseconds(value)
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
