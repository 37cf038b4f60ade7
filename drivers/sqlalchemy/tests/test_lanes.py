"""What is remembered between two claims: floors, and how often they are given up. Time is moved by the offset."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from msgspec import structs

from protojobs.port.records import ClaimedJob
from protojobs_sqlalchemy.verbs.lanes import Lane, LaneMemory, Lanes, firsts_of

QUEUES = ("q",)
LANE: Lane = ("q", 0)
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def claim(number: int, *, due: datetime = MOMENT) -> ClaimedJob:
    return ClaimedJob(
        id=f"{number:032}",
        claim_seq=1,
        reserved_by="w",
        queue="q",
        job_name="n",
        job_class="c",
        data="{}",
        priority=0,
        attempts=1,
        max_retries=3,
        retry_delay=1.0,
        retry_policy=None,
        timeout=0.0,
        available_at=due,
        reserved_at=MOMENT,
        crashes=0,
        returns=0,
        reclaims=0,
    )


def read(memory: LaneMemory, at_s: float, *also: Lane) -> Lanes:
    return memory.read(QUEUES, at_s, lambda: [*also, LANE])


def is_walked(memory: LaneMemory, at_s: float, *, walk_s: float) -> bool:
    """A moment of a busy lane: it is read, claimed from, and again. Whether that began at its front."""
    lanes = read(memory, at_s)
    has_walked = not lanes.has_floors
    lanes.note_claim(firsts_of([claim(1)]), is_full=True)
    lanes.note_time(walk_s if has_walked else 0.01, has_walked=has_walked)
    lanes.note_time(0.01, has_walked=False)
    return has_walked


def walks(seconds: int, *, walk_s: float) -> int:
    """How often a busy lane that is read every two seconds is walked from its front, if that takes so long."""
    memory = LaneMemory()
    return sum(is_walked(memory, float(second), walk_s=walk_s) for second in range(0, seconds, 2))


def test_lanes_are_remembered_for_a_set_of_queues_and_asked_in_the_order_of_each_claim() -> None:
    memory, lanes = LaneMemory(), [("a", 0), ("b", 5), ("b", 0), ("c", 0)]
    known = memory.read(("a", "b", "c"), 0.0, lambda: lanes)
    assert memory.fresh(("c", "b", "a"), 0.0) is known
    assert [known.order[place] for place in known.places(("b", "c", "a"))] == [("b", 5), ("b", 0), ("c", 0), ("a", 0)]
    assert known.order == lanes


def test_a_floor_is_the_first_job_of_the_last_full_claim_and_ids_tell_equal_times_apart() -> None:
    lanes = read(LaneMemory(), 0.0)
    lanes.note_claim(firsts_of([claim(5), claim(7), claim(6, due=MOMENT + timedelta(seconds=1))]), is_full=True)
    assert (lanes.floors, lanes.firsts) == ([MOMENT], [claim(5).id])


def test_a_claim_of_several_lanes_has_a_first_job_of_each() -> None:
    other = structs.replace(claim(3), priority=-1)
    assert firsts_of([claim(5), claim(7), other, structs.replace(other, id="z")]) == {
        LANE: (MOMENT, claim(5).id),
        ("q", -1): (MOMENT, claim(3).id),
    }


def test_a_lane_of_which_a_claim_saw_nothing_keeps_its_floor() -> None:
    lanes = read(LaneMemory(), 0.0, ("q", 9))
    earlier, later = MOMENT - timedelta(seconds=1), MOMENT + timedelta(seconds=1)
    lanes.note_claim({LANE: (earlier, claim(7).id), ("q", 9): (later, "one")}, is_full=True)
    assert lanes.floors == [later, earlier]
    lanes.note_claim(firsts_of([claim(5)]), is_full=True)
    assert lanes.floors == [later, MOMENT]


def test_what_is_remembered_holds_for_a_second_at_most() -> None:
    memory = LaneMemory()
    lanes = read(memory, 0.0)
    lanes.note_claim(firsts_of([claim(1)]), is_full=True)
    assert memory.fresh(QUEUES, 0.5) is lanes
    assert memory.fresh(QUEUES, 1.1) is None
    assert not read(memory, 1.1).has_floors


def test_a_claim_that_is_not_full_and_an_enqueue_make_everything_be_read_again() -> None:
    memory = LaneMemory()
    for forget in (lambda lanes: lanes.note_claim({}, is_full=False), lambda _: memory.note_enqueue(["q", "other"])):
        lanes = read(memory, 0.0)
        lanes.note_claim(firsts_of([claim(1)]), is_full=True)
        forget(lanes)
        assert memory.fresh(QUEUES, 0.0) is None
        assert not memory.is_busy(QUEUES)
        assert not read(memory, 0.0).has_floors


def test_a_full_claim_that_knew_no_lanes_makes_the_next_one_read_them() -> None:
    memory = LaneMemory()
    assert not memory.is_busy(QUEUES)
    memory.note_full(QUEUES)
    assert memory.is_busy(QUEUES)
    assert memory.fresh(QUEUES, 0.0) is None


def test_the_floors_are_given_up_each_time_while_that_is_cheap() -> None:
    assert walks(300, walk_s=0.05) == 150


def test_two_slow_walks_on_end_put_the_next_one_off_for_twenty_times_as_long() -> None:
    # The first walk has nothing to be compared with, the second and the third are the two.
    assert walks(300, walk_s=1.01) == 3 + (298 - 4) // 20
    assert walks(300, walk_s=1000.0) == 3 + (298 - 4) // 60  # but never for longer than a minute


def test_a_single_slow_walk_puts_nothing_off() -> None:
    memory = LaneMemory()
    assert all(is_walked(memory, at_s, walk_s=walk_s) for at_s, walk_s in ((0, 0.01), (2, 5.0), (4, 0.01), (6, 5.0)))


def test_a_new_lane_is_seen_within_a_second_also_while_walks_are_put_off() -> None:
    memory = LaneMemory()
    assert [is_walked(memory, at_s, walk_s=2.0) for at_s in (0.0, 2.0, 4.0, 6.0)] == [True, True, True, False]
    urgent: Lane = ("q", 9)
    lanes = read(memory, 8.0, urgent)
    assert (lanes.order, lanes.floors) == ([urgent, LANE], [None, MOMENT])


def test_a_claim_that_is_not_full_ends_the_putting_off() -> None:
    memory = LaneMemory()
    for at_s in (0.0, 2.0, 4.0):
        is_walked(memory, at_s, walk_s=2.0)
    lanes = read(memory, 6.0)
    assert lanes.has_floors
    lanes.note_claim({}, is_full=False)
    assert not read(memory, 6.0).has_floors


def test_floors_that_stay_long_are_told_of_by_their_queues() -> None:
    memory = LaneMemory()
    assert not memory.is_put_off(QUEUES)
    for second in range(0, 8, 2):
        is_walked(memory, float(second), walk_s=1.0)
    assert memory.is_put_off(["q", "q"])
    assert not memory.is_put_off(["other"])
