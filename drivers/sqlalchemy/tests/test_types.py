"""Times as SQLite keeps them: whole microseconds, exact both ways. Ids that are checked together."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protojobs_sqlalchemy.tables import types
from protojobs_sqlalchemy.tables.types import are_job_ids, from_microseconds, is_job_id, to_microseconds

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


SOUND = "0193a7c2-1111-7abc-8def-0123456789ab"
UNSOUND = (
    *(
        "",
        "x",
        SOUND.upper(),
        SOUND[:-1],
        f"{SOUND}0",
        SOUND.replace("-", ""),
        SOUND.replace("a", "g"),
        f" {SOUND[1:]}",
    ),
    *(
        f"{SOUND},{SOUND}",
        f"{SOUND[:8]}0{SOUND[9:]}",
        f"-{SOUND[1:]}",
        f"\ud800{SOUND[1:]}",
        f"٣{SOUND[1:]}",
        f"{SOUND},",
    ),
)


@pytest.mark.parametrize("ids", [[SOUND], [SOUND] * 3, *[[SOUND, each, SOUND] for each in UNSOUND]], ids=ascii)
def test_many_ids_are_sound_together_if_each_of_them_is(ids: list[str]) -> None:
    assert are_job_ids(",".join(ids), len(ids)) == all(map(is_job_id, ids))


@pytest.mark.parametrize(
    "ids", [[f"{SOUND},{SOUND}", ""], [SOUND[:20], SOUND[20:]], [f"{SOUND[:-1]},", "0"]], ids=ascii
)
def test_pieces_that_join_into_something_like_ids_are_none(ids: list[str]) -> None:
    assert not are_job_ids(",".join(ids), len(ids))
