"""Looking: get and find, in bounded pages."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import pytest

from protojobs.entropy import fresh_id
from protojobs.errors import OptionInvalid, ProtojobsError
from protojobs.port.driver import Store
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.observing import Observes
from protojobs.port.records import CancelAnswer, JobFilter, RetryAnswer
from protojobs.port.rules import is_wanted
from protojobs.testing.conformance.fixtures import Fixtures
from protojobs.testing.conformance.levels import concern
from protojobs.testing.conformance.steps import all_jobs, fresh_ids, join, lend, new_job, only, push, settle, their_ids

__all__ = ["Listing"]

NO_CURSORS = ("", "\ud800", "a\0b", "no cursor", "/", "12", "2030-01-01T00:00:00.000000/abc")


@concern("listing")
class Listing(Fixtures):
    """Whatever there is can be found, page by page, each once."""

    def test_get_gives_the_jobs_that_exist(self, driver: Store) -> None:
        ids = push(driver, new_job(), new_job())
        assert sorted(their_ids(driver.get([ids[0], fresh_id(), ids[1], ids[0]]))) == sorted(ids)
        assert driver.get([]) == []
        assert driver.get(["no such id"]) == []

    def test_get_and_get_failed_refuse_more_than_a_thousand_ids(self, driver: Store) -> None:
        ids = fresh_ids(1_001)
        for verb in (driver.get, driver.get_failed):
            assert verb(ids[:1_000]) == []
            with pytest.raises(ProtojobsError):
                verb(ids)

    @pytest.mark.parametrize("limit", [1, 3, 7, 50])
    def test_find_shows_every_job_once_newest_first(self, driver: Store, limit: int) -> None:
        ids = fresh_ids(7)
        push(driver, *[new_job(id=job_id) for job_id in ids[::2]])
        push(driver, *[new_job("other", id=job_id) for job_id in ids[1::2]])
        assert their_ids(all_jobs(driver, limit=limit)) == ids[::-1]

    def test_an_empty_store_has_one_empty_page(self, driver: Store) -> None:
        page = driver.find(JobFilter())
        assert (page.jobs, page.cursor) == ((), None)

    def test_find_shows_what_matches_every_field_that_is_set(self, driver: Store) -> None:
        for queue in ("a", "b"):
            for name in ("x", "y"):
                push(driver, new_job(queue, job_name=name), new_job(queue, job_name=name))
        lend(driver, join(driver), "a", limit=1)
        for which, count in [
            (JobFilter(queue="a"), 4),
            (JobFilter(job_name="x"), 4),
            (JobFilter(queue="b", job_name="y"), 2),
            (JobFilter(states=(JobState.PROCESSING,)), 1),
            (JobFilter(states=(JobState.PROCESSING, JobState.PENDING), queue="a"), 4),
            (JobFilter(states=(JobState.COMPLETED,)), 0),
            (JobFilter(queue="c"), 0),
        ]:
            found = all_jobs(driver, which, limit=2)
            assert len({job.id for job in found}) == len(found) == count, which
            assert [job for job in found if not is_wanted(job, which)] == [], which

    @pytest.mark.parametrize(
        ("verb", "state"),
        [(Verb.COMPLETE, JobState.COMPLETED), (Verb.FAIL, JobState.FAILED), (Verb.CANCEL, JobState.CANCELLED)],
    )
    def test_find_shows_finished_jobs_too(self, driver: Store, verb: Verb, state: JobState) -> None:
        job_id = only(push(driver))
        settle(driver, lend(driver, join(driver))[0], verb)
        assert their_ids(all_jobs(driver, JobFilter(states=(state,)))) == [job_id]

    def test_a_job_that_comes_while_paging_disturbs_no_page(self, driver: Store) -> None:
        ids = fresh_ids(6)
        push(driver, *[new_job(id=job_id) for job_id in ids[:5]])
        page = driver.find(JobFilter(), limit=2)
        push(driver, new_job(id=ids[5]))
        rest = driver.find(JobFilter(), limit=10, cursor=page.cursor)
        assert their_ids([*page.jobs, *rest.jobs]) == ids[4::-1]

    @pytest.mark.parametrize("cursor", NO_CURSORS, ids=ascii)
    def test_a_cursor_that_no_list_gave_is_refused(self, driver: Store, cursor: str) -> None:
        push(driver, new_job(), new_job())
        settle(driver, only(lend(driver, join(driver), limit=1)), Verb.FAIL)
        lists: list[Callable[..., object]] = [partial(driver.find, JobFilter()), driver.failed]
        if isinstance(driver, Observes) and driver.capabilities.observing:
            lists += [driver.actions, partial(driver.failed_alike, ""), partial(driver.failed_alike, "none such")]
        for listed in lists:
            with pytest.raises(OptionInvalid):
                listed(cursor=cursor)

    @pytest.mark.parametrize("odd", ["", "\ud800", "a\0b", "x" * 5_000], ids=["empty", "half", "NUL", "long"])
    def test_what_no_job_can_be_called_is_found_nowhere(self, driver: Store, odd: str) -> None:
        push(driver, new_job(), new_job())
        settle(driver, only(lend(driver, join(driver), limit=1)), Verb.FAIL)
        assert driver.get([odd]) == []
        assert driver.get_failed([odd]) == []
        assert driver.cancel([odd]) == [CancelAnswer.MISSING]
        assert driver.retry_failed([odd]) == [RetryAnswer.MISSING]
        assert driver.forget_failed([odd]) == 0
        looks: list[Callable[[], object]] = [  # of names some stores say at once that there can be none
            lambda: driver.find(JobFilter(queue=odd)).jobs,
            lambda: driver.find(JobFilter(job_name=odd)).jobs,
            lambda: driver.failed(queue=odd).jobs,
            lambda: driver.stats(odd).total,
        ]
        for look in looks:
            with suppress(OptionInvalid):
                assert not look()

    def test_long_data_is_cut_to_so_many_characters(self, driver: Store) -> None:
        push(driver, new_job(data='"é🎈é🎈é🎈"'), new_job(data="{}"))
        for chars_max, short, long in [(5, "{}", '"é🎈é🎈'), (1, "{", '"'), (0, "", ""), (None, "{}", '"é🎈é🎈é🎈"')]:
            found = driver.find(JobFilter(queue="q"), chars_max=chars_max).jobs
            assert [job.data for job in found] == [short, long]
            assert len({job.id for job in found}) == 2

    def test_find_and_get_tell_the_same(self, driver: Store) -> None:
        push(driver, new_job(), new_job(delay=10))
        lend(driver, join(driver))
        found = all_jobs(driver)
        assert sorted(found, key=lambda job: job.id) == sorted(driver.get(their_ids(found)), key=lambda job: job.id)
