"""Names: compared byte by byte, and never taken for anything but names."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from protojobs.port.driver import Store
from protojobs.port.lifecycle import Verb
from protojobs.port.records import JobFilter
from protojobs.testing.conformance.fixtures import Fixtures, Handles
from protojobs.testing.conformance.levels import concern
from protojobs.testing.conformance.steps import (
    all_failed,
    all_jobs,
    join,
    lend,
    new_job,
    only,
    push,
    settle,
    settlement,
)

__all__ = ["Naming"]

ALIKE = (  # what collations, trimming, normal forms and compatibility foldings take for the same
    "emails",
    "Emails",
    "EMAILS",
    "émails",
    "e\u0301mails",
    "emails ",
    " emails",
    "ｅｍａｉｌｓ",
    "emaıls",
    "emails\u200b",
)
STRANGE = {
    "quote": "a'b",
    "double-quote": 'a"b',
    "drop-table": "'; DROP TABLE jobs; --",
    "percent": "100%s %(x)s %%",
    "underscore-wildcards": "%_",
    "backslash": "a\\b\\",
    "colon-bind": ":name :1 ?1 $1",
    "braces": "{a}:{b}",
    "star-glob": "q*[ab]?",
    "separators": "a:b/c|d,e;f",
    "emoji": "🎈🇨🇭👩‍🚀",
    "right-to-left": "שלום",
    "digits": "0123",
    "null-word": "NULL",
    "hundred-bytes": "漢" * 33 + "x",
}


@concern("naming")
class Naming(Fixtures):
    """Whatever a queue is called, it is that queue and no other."""

    def test_names_that_look_alike_are_different_queues(self, driver: Store) -> None:
        push(driver, *[new_job(name, data=f'{{"n":{place}}}') for place, name in enumerate(ALIKE)])
        worker = join(driver)
        assert sorted(queue.name for queue in driver.queues()) == sorted(ALIKE)
        for place, name in enumerate(ALIKE):
            assert driver.stats(name).pending == 1
            claim = only(lend(driver, worker, name))
            assert (claim.queue, claim.data) == (name, f'{{"n":{place}}}')

    def test_a_pause_or_a_clear_does_not_reach_a_queue_that_looks_alike(self, driver: Store) -> None:
        push(driver, *[new_job(name) for name in ALIKE])
        driver.pause(ALIKE[1])
        driver.clear(ALIKE[2])
        paused = [queue.name for queue in driver.queues() if queue.is_paused]
        assert paused == [ALIKE[1]]
        assert [driver.stats(name).pending for name in ALIKE] == [1, 1, 0, *[1] * (len(ALIKE) - 3)]

    def test_job_names_that_look_alike_are_told_apart(self, driver: Store) -> None:
        push(driver, *[new_job(job_name=name) for name in ALIKE])
        for name in ALIKE:
            assert [job.job_name for job in all_jobs(driver, JobFilter(job_name=name))] == [name]

    @pytest.mark.parametrize("name", STRANGE.values(), ids=STRANGE.keys())
    def test_a_strange_name_is_a_name_like_any_other(self, driver: Store, handles: Handles, name: str) -> None:
        job = new_job(name, job_name=name)
        push(driver, job, new_job("plain"))
        worker, other = join(driver), handles()
        assert other.stats(name).pending == 1
        assert [(queue.name, queue.stats.pending) for queue in other.queues()] == sorted([(name, 1), ("plain", 1)])
        driver.pause(name)
        assert lend(other, worker, name) == []
        driver.resume(name)
        claim = only(lend(other, worker, name))
        assert (claim.id, claim.queue, claim.job_name) == (job.id, name, name)
        settle(driver, claim, Verb.FAIL)
        assert [failed.queue for failed in all_failed(other, name)] == [name]
        assert driver.clear(name).total == 1
        assert driver.stats().total == 1

    def test_strange_reasons_and_tracebacks_are_kept_as_they_are(self, driver: Store) -> None:
        text = "\n".join(STRANGE.values())
        push(driver, new_job(), new_job())
        claim = only(lend(driver, join(driver), limit=1))
        settled = driver.settle([replace(settlement(claim, Verb.FAIL), error=text)])
        assert len(settled) == 1
        assert [failed.exception for failed in all_failed(driver)] == [text]
        pending = only([job.id for job in all_jobs(driver) if job.id != claim.id])
        driver.cancel([pending], reason=STRANGE["drop-table"])
        assert driver.get([pending])[0].reason == STRANGE["drop-table"]
