"""Groups of failures: those with one fingerprint, which always agree with failed_jobs."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from protojobs.port.driver import Store
from protojobs.port.lifecycle import Verb
from protojobs.port.observing import Observes
from protojobs.port.records import FailedJob
from protojobs.testing.conformance.fixtures import Fixtures, Later
from protojobs.testing.conformance.levels import concern
from protojobs.testing.conformance.naming import ALIKE
from protojobs.testing.conformance.observing import observer_of
from protojobs.testing.conformance.steps import all_failed, join, lend, new_job, only, push, settlement
from protojobs.testing.conformance.transferring import export_all

__all__ = ["Grouping"]

PAGED_MAX = 100  # failures in any test here: more is a page that begins anew
ERROR = "Traceback\n  é🎈 ValueError: no"


@concern("grouping")
class Grouping(Fixtures):
    """Failures by their settlement's fingerprint, where the driver observes."""

    @pytest.fixture
    def observer(self, driver: Store) -> Observes:
        """The driver under test, as one that keeps notes."""
        return observer_of(driver)

    def test_failures_with_one_fingerprint_are_one_group(self, driver: Store, observer: Observes, later: Later) -> None:
        for step, fingerprint in enumerate(["a", "b", "a", "", "b", "a"]):
            fail_as(later(step * 10.0), fingerprint, 2)
        first, second, third = observer.failure_groups()
        assert [(each.fingerprint, each.count, each.is_capped) for each in (first, second, third)] == [
            ("a", 6, False), ("b", 4, False), ("", 2, False),
        ]  # fmt: skip
        rows = [row for row in all_failed(driver) if row.fingerprint == "a"]
        assert (first.last, first.first_failed_at) == (rows[0], rows[-1].failed_at)
        assert_groups_are_true(driver, observer)

    def test_the_groups_that_failed_last_are_shown(self, observer: Observes, later: Later) -> None:
        for step, fingerprint in enumerate(["a", "b", "c", "d", "b"]):
            fail_as(later(step * 10.0), fingerprint)
        assert [each.fingerprint for each in observer.failure_groups(limit=3)] == ["b", "d", "c"]

    def test_a_group_is_counted_up_to_a_bound(self, observer: Observes, later: Later) -> None:
        (first, *_) = fail_as(later(0), "a", 2)
        fail_as(later(10), "a", 3)
        fail_as(later(20), "b", 3)
        small, large = observer.failure_groups(counted_max=3)
        assert (small.fingerprint, small.count, small.is_capped) == ("b", 3, False)
        assert (large.fingerprint, large.count, large.is_capped) == ("a", 3, True)
        assert large.first_failed_at == first.failed_at

    def test_groups_agree_with_failed_jobs_whatever_people_do(
        self, driver: Store, observer: Observes, later: Later
    ) -> None:
        first, second, third = fail_as(driver, "a", 3)
        (other, _) = fail_as(later(10), "b", 2, queue="other")
        fail_as(later(20), "c")
        driver.retry_failed([third.id])  # the last of its group
        assert_groups_are_true(driver, observer, "a", "b", "c")
        driver.forget_failed([first.id, other.id])
        assert_groups_are_true(driver, observer, "a", "b", "c")
        driver.retry_failed([second.id])
        assert_groups_are_true(driver, observer, "b", "c")
        driver.clear("other")
        assert_groups_are_true(driver, observer, "c")
        fail_as(later(30), "c")
        later(35).prune(failed_older_than=10)
        assert_groups_are_true(driver, observer, "c")
        assert [each.count for each in observer.failure_groups()] == [1]
        later(1e6).prune(failed_older_than=10)
        assert_groups_are_true(driver, observer)

    def test_groups_move_with_their_jobs(self, driver: Store, observer: Observes, later: Later) -> None:
        fail_as(driver, "a", 2)
        fail_as(later(10), "b")
        jobs = export_all(driver, "token")
        driver.drop_exported("token", [job.id for job in jobs])
        assert observer.failure_groups() == []
        driver.import_jobs(sorted(jobs, key=lambda job: job.id, reverse=True))
        assert_groups_are_true(driver, observer, "b", "a")

    def test_a_job_that_fails_of_something_else_changes_its_group(self, driver: Store, observer: Observes) -> None:
        failed = only(fail_as(driver, "a"))
        driver.retry_failed([failed.id])
        claim = only(lend(driver, join(driver)))
        driver.settle([replace(settlement(claim, Verb.FAIL), error=ERROR, fingerprint="b")])
        assert_groups_are_true(driver, observer, "b")

    def test_a_group_is_shown_newest_first_page_by_page(self, driver: Store, observer: Observes, later: Later) -> None:
        for step in range(3):
            fail_as(later(step * 10.0), "a", 2)
            fail_as(later(step * 10.0 + 1), "b")
        expected = [row for row in all_failed(driver) if row.fingerprint == "a"]
        for limit in (1, 2, 4, 6, 50):
            assert all_alike(observer, "a", limit) == expected
        assert all_alike(observer, "c", 2) == []

    def test_long_texts_of_a_group_can_be_cut(self, driver: Store, observer: Observes) -> None:
        fail_as(driver, "a", data='"é🎈é🎈"')
        group = only(observer.failure_groups(chars_max=3))
        row = only(observer.failed_alike("a", chars_max=3).jobs)
        assert (group.last.data, group.last.exception) == (row.data, row.exception) == ('"é🎈', " no")

    def test_fingerprints_that_look_alike_are_different_groups(self, driver: Store, observer: Observes) -> None:
        for name in ALIKE:
            fail_as(driver, name)
        assert_groups_are_true(driver, observer, *ALIKE)
        for name in ALIKE:
            assert [row.fingerprint for row in all_alike(observer, name, 50)] == [name]


def fail_as(driver: Store, fingerprint: str, count: int = 1, *, queue: str = "q", data: str = "{}") -> list[FailedJob]:
    """Push and fail so many jobs in one step; their rows of failed_jobs, oldest first."""
    ids = push(driver, *[new_job(queue, data=data) for _ in range(count)])
    claims = [claim for claim in lend(driver, join(driver), queue) if claim.id in ids]
    assert len(claims) == count
    driver.settle([replace(settlement(claim, Verb.FAIL), error=ERROR, fingerprint=fingerprint) for claim in claims])
    return [row for row in reversed(all_failed(driver)) if row.job_id in ids]


def all_alike(observer: Observes, fingerprint: str, limit: int) -> list[FailedJob]:
    """All rows of one group, page by page."""
    rows: list[FailedJob] = []
    cursor: str | None = None
    while True:
        page = observer.failed_alike(fingerprint, limit=limit, cursor=cursor)
        assert len(page.jobs) <= limit
        rows.extend(page.jobs)
        assert len(rows) <= PAGED_MAX
        cursor = page.cursor
        if cursor is None:
            return rows


def assert_groups_are_true(driver: Store, observer: Observes, *fingerprints: str) -> None:
    """The groups agree with the rows themselves; where fingerprints are named, these are all there are."""
    rows: dict[str, list[FailedJob]] = {}
    for row in all_failed(driver, limit=1000):
        rows.setdefault(row.fingerprint, []).append(row)
    found = observer.failure_groups()
    assert sorted(each.fingerprint for each in found) == sorted(rows)
    assert [each.last.failed_at for each in found] == sorted((rows[key][0].failed_at for key in rows), reverse=True)
    for each in found:
        mine = rows[each.fingerprint]
        assert (each.count, each.is_capped) == (len(mine), False)
        assert (each.last, each.first_failed_at) == (mine[0], mine[-1].failed_at)
        assert all_alike(observer, each.fingerprint, 50) == mine
    if fingerprints:
        assert set(rows) == set(fingerprints)
