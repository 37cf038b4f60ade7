"""Keeping schedules: saved under a version, listed by id, found when they are due; `firing.py` moves them on."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest
from msgspec.structs import asdict, replace

from protojobs.entropy import fresh_id
from protojobs.errors import OptionInvalid
from protojobs.port.driver import Store
from protojobs.port.schedules import (
    SCHEDULE_BYTES_MAX,
    SCHEDULE_ID_BYTES_MAX,
    DueCursor,
    FireStatus,
    Misfire,
    Overlap,
    Schedule,
    SchedulePage,
)
from protojobs.testing.conformance.fixtures import Fixtures, Handles, Later
from protojobs.testing.conformance.levels import concern
from protojobs.testing.conformance.naming import ALIKE, STRANGE
from protojobs.testing.conformance.plans import (
    MICROSECOND,
    MINUTE,
    all_due,
    all_schedules,
    firing_of,
    new_schedule,
    outcomes,
    paused,
    schedule_of,
    store_schedule,
)
from protojobs.testing.conformance.steps import all_well, at_once, job_of, new_job

__all__ = ["Scheduling"]


@concern("scheduling")
class Scheduling(Fixtures):
    """A schedule is kept as it was said, and whoever changes it knows what is changed."""

    def test_a_saved_schedule_is_seen_by_another_driver_with_every_field(self, driver: Store, handles: Handles) -> None:
        schedule = a_full_schedule(driver)
        assert driver.save_schedule(schedule, version=0) is True
        seen = schedule_of(handles(), schedule.id)
        assert asdict(seen) == asdict(replace(schedule, version=1))
        assert (type(seen.misfire), type(seen.overlap), type(seen.is_paused)) == (Misfire, Overlap, bool)
        times = (seen.start_at, seen.end_at, seen.next_due_at, seen.last_due_at)
        assert [time.utcoffset() for time in times if time is not None] == [timedelta(0)] * 4

    def test_a_schedule_that_says_little_is_seen_with_every_field(self, driver: Store, handles: Handles) -> None:
        schedule = new_schedule(due=None)
        driver.save_schedule(schedule, version=0)
        assert asdict(schedule_of(handles(), "s")) == asdict(replace(schedule, version=1))

    def test_a_schedule_as_large_as_is_allowed_comes_back_unchanged(self, driver: Store) -> None:
        schedule = replace(
            new_schedule("漢" * (SCHEDULE_ID_BYTES_MAX // 3) + "xx", due=driver.now()),
            spec="0 0 1,2,3 * *" + ",4" * 93,
            timezone="America/Argentina/ComodRivadavia",
            data='"' + "é" * (SCHEDULE_BYTES_MAX // 2 - 1) + '"',
        )
        assert len(schedule.id.encode()) == SCHEDULE_ID_BYTES_MAX
        assert len(schedule.data.encode()) == SCHEDULE_BYTES_MAX
        assert store_schedule(driver, schedule) == replace(schedule, version=1)

    def test_a_schedule_is_replaced_by_whoever_knows_its_version(self, driver: Store) -> None:
        first = store_schedule(driver, a_full_schedule(driver))
        second = new_schedule(first.id, due=driver.now())
        assert driver.save_schedule(second, version=first.version) is True
        assert schedule_of(driver, first.id) == replace(second, version=first.version + 1)

    def test_each_change_counts_in_the_version_whatever_the_record_says(self, driver: Store) -> None:
        schedule = new_schedule(due=driver.now())
        for version in range(4):
            assert driver.save_schedule(replace(schedule, version=77), version=version) is True
            assert schedule_of(driver, "s").version == version + 1

    @pytest.mark.parametrize("version", [0, 1, 3])
    def test_a_schedule_of_another_version_is_left_alone(self, driver: Store, version: int) -> None:
        schedule = store_schedule(driver, new_schedule(due=driver.now()))
        driver.save_schedule(schedule, version=1)
        before = schedule_of(driver, "s")
        assert driver.save_schedule(replace(schedule, spec="every 1"), version=version) is False
        assert schedule_of(driver, "s") == before

    def test_a_schedule_that_is_gone_is_not_replaced(self, driver: Store) -> None:
        schedule = store_schedule(driver, new_schedule(due=driver.now()))
        driver.remove_schedule("s")
        assert driver.save_schedule(schedule, version=1) is False
        assert driver.get_schedules(["s"]) == SchedulePage()
        assert driver.due_schedules(10).schedules == ()

    def test_a_change_that_a_firing_overtook_is_refused(self, driver: Store) -> None:
        schedule = store_schedule(driver, new_schedule(due=driver.now()))
        assert outcomes(driver, firing_of(schedule)) == [FireStatus.FIRED]
        assert paused(driver, schedule) is False
        assert schedule_of(driver, "s").is_paused is False

    def test_of_several_changes_of_one_version_at_once_one_is_made(self, driver: Store, handles: Handles) -> None:
        schedule = new_schedule(due=driver.now())
        drivers = [handles() for _ in range(4)]
        for version in range(4):
            saves = [partial(each.save_schedule, schedule, version=version) for each in drivers]
            assert sorted(all_well(at_once(*saves))) == [False, False, False, True]
            assert schedule_of(driver, "s").version == version + 1

    def test_those_that_exist_are_got(self, driver: Store) -> None:
        kept = [store_schedule(driver, new_schedule(name, due=driver.now())) for name in ("a", "b", "c")]
        found = driver.get_schedules(["c", fresh_id(), "a"])
        assert sorted(found.schedules, key=lambda schedule: schedule.id) == [kept[0], kept[2]]
        assert (found.unreadable, found.cursor) == ((), None)
        assert driver.get_schedules([]) == SchedulePage()

    def test_ids_that_look_alike_are_different_schedules(self, driver: Store) -> None:
        due = driver.now()
        for place, name in enumerate(ALIKE):
            store_schedule(driver, replace(new_schedule(name, due=due), priority=place))
        assert [schedule_of(driver, name).priority for name in ALIKE] == list(range(len(ALIKE)))
        assert outcomes(driver, firing_of(schedule_of(driver, ALIKE[1]))) == [FireStatus.FIRED]
        assert driver.remove_schedule(ALIKE[2]) is True
        versions = {schedule.id: schedule.version for schedule in all_schedules(driver)}
        assert versions == {name: 2 if name == ALIKE[1] else 1 for name in ALIKE if name != ALIKE[2]}

    @pytest.mark.parametrize("name", STRANGE.values(), ids=STRANGE.keys())
    def test_a_strange_id_is_an_id_like_any_other(self, driver: Store, name: str) -> None:
        strange = replace(new_schedule(name, due=driver.now() - MINUTE), queue=name, spec=name, data=name)
        schedule = store_schedule(driver, strange)
        assert schedule == replace(strange, version=1)
        assert [due.id for due in driver.due_schedules(10).schedules] == [name]
        said = firing_of(schedule, job=new_job(name, job_name=name, data=name))
        assert outcomes(driver, said) == [FireStatus.FIRED]
        assert said.job is not None
        fired = job_of(driver, said.job.id)
        assert (fired.queue, fired.job_name, fired.data) == (name, name, name)
        assert schedule_of(driver, name).last_job_id == fired.id
        assert [listed.id for listed in all_schedules(driver)] == [name]
        assert driver.remove_schedule(name) is True

    @pytest.mark.parametrize("limit", [1, 3, 100])
    def test_schedules_are_listed_page_by_page_in_the_order_of_the_bytes(self, driver: Store, limit: int) -> None:
        names = ["b", "B", "a", "a ", "a.", "aa", "é", "e\u0301", "z", "_", "漢", "\uffee", "🎈", "0", "10", "9"]
        kept = [store_schedule(driver, new_schedule(name, due=driver.now())) for name in names]
        assert all_schedules(driver, limit=limit) == sorted(kept, key=lambda schedule: schedule.id.encode())

    def test_paused_and_ended_ones_are_listed(self, driver: Store) -> None:
        store_schedule(driver, new_schedule("ended", due=None))
        store_schedule(driver, replace(new_schedule("paused", due=driver.now()), is_paused=True))
        assert [schedule.id for schedule in all_schedules(driver)] == ["ended", "paused"]

    def test_a_cursor_stays_a_place_when_its_schedule_goes(self, driver: Store) -> None:
        for name in "abcde":
            store_schedule(driver, new_schedule(name, due=driver.now()))
        page = driver.list_schedules(limit=2)
        assert page.cursor is not None
        driver.remove_schedule("b")
        store_schedule(driver, new_schedule("a2", due=driver.now()))
        rest = driver.list_schedules(cursor=page.cursor)
        assert [[schedule.id for schedule in each.schedules] for each in (page, rest)] == [["a", "b"], ["c", "d", "e"]]

    @pytest.mark.parametrize("odd", ["", "\ud800", "a\0b", "x" * 5_000], ids=["empty", "half", "NUL", "long"])
    def test_what_no_schedule_can_be_called_is_found_nowhere(self, driver: Store, odd: str) -> None:
        kept = [store_schedule(driver, new_schedule(name, due=driver.now())) for name in ("a", "b")]
        assert driver.get_schedules([odd]) == SchedulePage()
        assert driver.get_schedules([odd, "a"]).schedules == (kept[0],)
        assert driver.remove_schedule(odd) is False
        with pytest.raises(OptionInvalid):
            driver.list_schedules(cursor=odd)
        assert all_schedules(driver) == kept

    def test_due_ones_come_by_time_and_then_by_id(self, driver: Store) -> None:
        now = driver.now()
        by_time = [("z", 5), ("Y", 4), ("b", 3), ("é", 3), ("a", 3), ("B", 3), ("a ", 3), ("c", 0)]
        kept = [store_schedule(driver, new_schedule(name, due=now - minutes * MINUTE)) for name, minutes in by_time]
        due = driver.due_schedules(100).schedules
        assert due == tuple(sorted(kept, key=lambda each: (each.next_due_at, each.id.encode())))
        assert driver.due_schedules(3).schedules == due[:3]

    @pytest.mark.parametrize("limit", [1, 3, 7, 100])
    def test_due_ones_are_walked_through_page_by_page_while_they_stay_due(self, driver: Store, limit: int) -> None:
        now = driver.now()
        names = ["b", "B", "a", "a ", "aa", "é", "e\u0301", "漢", "\uffee", "🎈", "0", "10", "9"]
        by_time = [(f"{minutes}{name}", minutes) for minutes in (9, 5, 4) for name in names]
        kept = [store_schedule(driver, new_schedule(name, due=now - minutes * MINUTE)) for name, minutes in by_time]
        store_schedule(driver, new_schedule("ahead", due=now + 9 * MINUTE))
        store_schedule(driver, replace(new_schedule("paused", due=now - 4 * MINUTE), is_paused=True))
        assert all_due(driver, limit=limit) == sorted(kept, key=lambda each: (each.next_due_at, each.id.encode()))

    def test_every_page_of_due_ones_tells_the_first_time_ahead(self, driver: Store) -> None:
        now = driver.now()
        for name in "abc":
            store_schedule(driver, new_schedule(name, due=now - MINUTE))
        store_schedule(driver, new_schedule("ahead", due=now + 9 * MINUTE))
        first = driver.due_schedules(2)
        second = driver.due_schedules(2, cursor=first.cursor)
        assert [[one.id for one in page.schedules] for page in (first, second)] == [["a", "b"], ["c"]]
        assert (first.next_due_at, second.next_due_at, second.cursor) == (now + 9 * MINUTE, now + 9 * MINUTE, None)

    @pytest.mark.parametrize("how", ["fired", "removed", "paused"])
    def test_a_place_among_the_due_ones_stays_when_its_schedule_goes(self, driver: Store, how: str) -> None:
        kept = [store_schedule(driver, new_schedule(name, due=driver.now() - MINUTE)) for name in "abcd"]
        first = driver.due_schedules(2)
        assert first.cursor == DueCursor(kept[1].next_due_at or driver.now(), "b")
        if how == "fired":
            assert outcomes(driver, replace(firing_of(kept[1]), next_due=None)) == [FireStatus.FIRED]
        elif how == "removed":
            driver.remove_schedule("b")
        else:
            assert paused(driver, kept[1])
        assert [one.id for one in driver.due_schedules(9, cursor=first.cursor).schedules] == ["c", "d"]

    def test_what_is_paused_ended_or_ahead_is_not_due(self, driver: Store, later: Later) -> None:
        now = driver.now()
        store_schedule(driver, replace(new_schedule("paused", due=now - MINUTE), is_paused=True))
        store_schedule(driver, replace(new_schedule("paused ahead", due=now + 2 * MINUTE), is_paused=True))
        store_schedule(driver, new_schedule("ended", due=None))
        store_schedule(driver, new_schedule("last ahead", due=now + 9 * MINUTE))
        store_schedule(driver, new_schedule("ahead", due=now + 3 * MINUTE))
        store_schedule(driver, new_schedule("due", due=now - MINUTE))
        assert [schedule.id for schedule in driver.due_schedules(100).schedules] == ["due"]
        assert driver.due_schedules(100).next_due_at == now + 3 * MINUTE
        assert [schedule.id for schedule in later(400).due_schedules(100).schedules] == ["due", "ahead"]
        assert later(400).due_schedules(100).next_due_at == now + 9 * MINUTE
        assert later(4000).due_schedules(100).next_due_at is None
        assert [schedule.id for schedule in later(400).due_schedules(1).schedules] == ["due"]
        assert later(400).due_schedules(1).next_due_at == now + 9 * MINUTE, "of those that are not due"

    def test_a_schedule_is_due_at_its_time_and_not_a_microsecond_before(self, driver: Store) -> None:
        for step in range(1, 30):
            time = driver.now() + timedelta(microseconds=step * 400)
            store_schedule(driver, new_schedule(f"{step:02}", due=time))
            found = driver.due_schedules(100)
            times = [each.next_due_at for each in found.schedules]
            assert [time for time in times if time is None or time > found.now] == [], found.now
            assert found.next_due_at is None or found.next_due_at > found.now
            shown = {each.next_due_at for each in found.schedules} | {found.next_due_at}
            assert time in shown, "it is due, or it is the first one ahead"
            driver.remove_schedule(f"{step:02}")

    def test_what_is_due_is_told_with_the_stores_time(self, driver: Store, later: Later) -> None:
        assert driver.due_schedules(10).schedules == ()
        assert driver.due_schedules(10).next_due_at is None
        for store, ahead in ((driver, 0), (later(1000), 1000)):
            before = driver.now() + timedelta(seconds=ahead)
            now = store.due_schedules(10).now
            assert before - MINUTE < now < driver.now() + timedelta(seconds=ahead) + MINUTE
            assert now.utcoffset() == timedelta(0)

    def test_a_change_moves_what_is_due(self, driver: Store) -> None:
        past, ahead = driver.now() - MINUTE, driver.now() + 10 * MINUTE
        schedule = store_schedule(driver, new_schedule(due=past))
        changes = (
            (replace(schedule, is_paused=True), (0, None)),
            (schedule, (1, None)),
            (replace(schedule, next_due_at=ahead), (0, ahead)),
            (replace(schedule, next_due_at=None), (0, None)),
            (replace(schedule, next_due_at=past - MICROSECOND), (1, None)),
        )
        for version, (changed, shown) in enumerate(changes, start=1):
            assert driver.save_schedule(changed, version=version) is True
            found = driver.due_schedules(10)
            assert (len(found.schedules), found.next_due_at) == shown
            assert found.schedules in ((), (schedule_of(driver, "s"),))

    def test_a_removed_schedule_is_gone_and_its_jobs_stay(self, driver: Store, handles: Handles) -> None:
        schedule = store_schedule(driver, new_schedule(due=driver.now() - MINUTE))
        outcomes(driver, said := firing_of(schedule))
        assert handles().remove_schedule("s") is True
        assert driver.get_schedules(["s"]) == SchedulePage()
        assert all_schedules(driver) == []
        assert driver.due_schedules(10).schedules == ()
        assert said.job is not None
        assert job_of(driver, said.job.id).id == said.job.id
        assert driver.remove_schedule("s") is False

    def test_a_schedule_that_never_was_is_not_removed(self, driver: Store) -> None:
        store_schedule(driver, new_schedule("s", due=driver.now()))
        assert driver.remove_schedule("S") is False
        assert len(all_schedules(driver)) == 1

    def test_a_removed_schedule_begins_anew(self, driver: Store) -> None:
        schedule = store_schedule(driver, a_full_schedule(driver))
        driver.remove_schedule(schedule.id)
        anew = store_schedule(driver, new_schedule(schedule.id, due=driver.now()))
        assert (anew.version, anew.last_due_at, anew.last_job_id) == (1, None, None)

    def test_a_torn_down_store_has_no_schedules(self, driver: Store) -> None:
        store_schedule(driver, new_schedule(due=driver.now()))
        driver.teardown()
        driver.setup()
        assert all_schedules(driver) == []


def a_full_schedule(driver: Store) -> Schedule:
    """One in which no field has its default."""
    moment = driver.now().replace(microsecond=123_457)
    return Schedule(
        id="reports:é 漢",
        spec="*/5 8-17 * * mon-fri",
        timezone="Europe/Paris",
        misfire=Misfire.ALL,
        overlap=Overlap.QUEUE_ONE,
        catch_up=1234.5,
        jitter=0.125,
        start_at=moment - 9 * MINUTE,
        end_at=moment + timedelta(days=9_000, microseconds=1),
        queue="Reports",
        job_name="reports.daily",
        job_class="app.reports.Daily",
        data='{"to":"anna@example.org","n":[1,2.5,null,true],"text":"é 漢 \\u0000 \\n 🎈"}',
        priority=-7,
        max_retries=9,
        retry_delay=12.5,
        retry_policy='{"kind":"fixed"}',
        timeout=33.25,
        is_paused=True,
        next_due_at=moment + MINUTE,
        last_due_at=moment - MICROSECOND,
        last_job_id=fresh_id(),
    )
