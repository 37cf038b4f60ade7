"""Times as SQLite keeps them: whole microseconds, exact both ways."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import example, given
from hypothesis import strategies as st

from protojobs_sqlalchemy.tables import types
from protojobs_sqlalchemy.tables.types import from_microseconds, to_microseconds

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST = (datetime.max.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
BY_FLOAT = types._FLOATS_UNTIL


@given(st.integers(-(10**15), LAST) | st.integers(BY_FLOAT - 10**9, BY_FLOAT + 10**9))
@example(BY_FLOAT - 1)
@example(0)
@example(-1)
@example(LAST)
def test_every_microsecond_comes_back_as_it_was(count: int) -> None:
    moment = from_microseconds(count)
    assert moment == EPOCH + timedelta(microseconds=count)
    assert moment.tzinfo is UTC
    assert to_microseconds(moment) == count
