"""What counts as wrong: failures by job and error, queues that are behind or full, and workers that are not there."""

from __future__ import annotations

from datetime import timedelta

import pytest

from protojobs import job
from protojobs.errors import OptionInvalid, StoreUnavailable
from protojobs.port.records import WorkerInfo
from protojobs_alerts import AlertSettings, Watcher, watching
from protojobs_alerts import findings as module
from protojobs_alerts.findings import FINDINGS_MAX, error_type, in_words, printable
from protojobs_alerts.settings import Limits

QUIET = {"workers": False, "oldest": (), "failed": 0}


def texts(watcher: Watcher) -> list[str]:
    return [finding.text for finding in watcher.look()]


class TestFailures:
    def test_they_are_grouped_by_job_and_error_and_counted_in_the_window(self, queue, clock, fail) -> None:
        watcher = Watcher(queue, AlertSettings(failed=2, failed_window=300), clock=clock)
        fail(3)
        fail(2, KeyError("x"))
        fail(1, name="order.ship")
        assert texts(watcher) == [
            "Job order.pack failed for good 3 times in 5 min with ValueError (queue default).",
            "Job order.pack failed for good 2 times in 5 min with KeyError (queue default).",
        ]
        clock.advance(200)
        fail(2)
        assert texts(watcher)[0].startswith("Job order.pack failed for good 5 times")
        clock.advance(200)  # now the first three are out of the window
        assert texts(watcher) == ["Job order.pack failed for good 2 times in 5 min with ValueError (queue default)."]
        clock.advance(200)
        assert texts(watcher) == []

    def test_each_is_counted_once_and_its_number_since_the_last_look_is_known(self, queue, clock, fail) -> None:
        watcher = Watcher(queue, AlertSettings(), clock=clock)
        fail(2)
        assert [(one.count, one.new) for one in watcher.look()] == [(2, 2)]
        assert [(one.count, one.new) for one in watcher.look()] == [(2, 0)]
        clock.advance(1)
        fail(1)
        assert [(one.count, one.new) for one in watcher.look()] == [(3, 1)]

    def test_one_that_is_committed_late_is_found_all_the_same(self, queue, driver, clock, fail, monkeypatch) -> None:
        watcher = Watcher(queue, AlertSettings(), clock=clock)
        fail(1, name="late")
        (late,) = driver.failed().jobs
        clock.advance(10)
        fail(1, name="early")
        whole = driver.failed
        monkeypatch.setattr(driver, "failed", lambda **given: type(whole())(jobs=whole(**given).jobs[:1]))
        assert [one.job_name for one in watcher.look()] == ["early"]
        monkeypatch.undo()
        assert late.failed_at < clock.now()
        assert sorted(one.job_name for one in watcher.look()) == ["early", "late"]

    @pytest.mark.parametrize("verb", ["failed", "get_failed"])
    def test_a_store_that_breaks_off_in_the_middle_of_a_look_costs_none(
        self, queue, driver, clock, fail, monkeypatch, verb: str
    ) -> None:
        monkeypatch.setattr(module, "PAGE", 5)
        watcher = Watcher(queue, AlertSettings(), clock=clock)
        fail(12, ValueError("x" * module.TAIL_CHARS))
        whole = getattr(driver, verb)

        def away(*given: object, **named: object) -> object:
            if verb == "get_failed" or named["cursor"]:
                raise StoreUnavailable("no route")
            return whole(*given, **named)

        monkeypatch.setattr(driver, verb, away)
        with pytest.raises(StoreUnavailable):
            watcher.look()
        monkeypatch.setattr(driver, verb, whole)
        assert [(one.count, one.new, one.error) for one in watcher.look()] == [(12, 12, "ValueError")]
        assert [(one.count, one.new) for one in watcher.look()] == [(12, 0)]

    def test_what_was_said_is_not_told_unless_that_is_asked_for(self, queue, clock, fail) -> None:
        fail(1)
        assert "secret" not in str(Watcher(queue, AlertSettings(), clock=clock).look())
        (told,) = texts(Watcher(queue, AlertSettings(detail="error"), clock=clock))
        assert told.endswith("The last one said: the secret is 42")

    def test_a_long_speech_of_an_error_is_not_taken_for_its_name(self, queue, clock, fail, monkeypatch) -> None:
        fail(3, ValueError("secret" * 2_000))
        fail(2, KeyError("a\nsecret: b\n" * 2_000))
        watcher = Watcher(queue, AlertSettings(), clock=clock)
        assert [(one.error, one.count) for one in watcher.look()] == [("ValueError", 3), ("KeyError", 2)]
        monkeypatch.setattr(module, "WHOLE_MAX", 1)
        told = Watcher(queue, AlertSettings(detail="error"), clock=clock).look()
        assert sum(one.count for one in told) == 5
        assert {one.error for one in told} <= {"ValueError", "KeyError", "an error"}

    def test_a_flood_is_read_in_bounds_and_called_at_least(self, queue, clock, fail, monkeypatch) -> None:
        monkeypatch.setattr(module, "PAGES_MAX", 2)
        monkeypatch.setattr(module, "PAGE", 5)
        fail(30)
        assert "at least 10 times" in texts(Watcher(queue, AlertSettings(), clock=clock))[0]

    def test_more_groups_than_anybody_reads_become_a_number(self, queue, clock, fail, monkeypatch) -> None:
        monkeypatch.setattr(module, "PAGE", 1000)
        queue.push_many([job(name=f"job-{n}", max_retries=0)(_broken).bind() for n in range(FINDINGS_MAX + 7)])
        queue.work("default", FINDINGS_MAX + 7)
        told = texts(Watcher(queue, AlertSettings(workers=False), clock=clock))
        assert len(told) == FINDINGS_MAX + 1
        assert told[-1] == "7 further alerts."

    def test_what_is_pushed_out_by_others_goes_on_and_is_not_told_to_be_over(
        self, queue, clock, fail, monkeypatch
    ) -> None:
        monkeypatch.setattr(watching, "FINDINGS_MAX", 3)
        watcher = Watcher(queue, AlertSettings(), clock=clock)
        for name in "abcd":
            fail(1, name=name)
        (message,) = watcher.turn()
        assert [one.finding.job_name for one in message.notices] == ["a", "b", "c", ""]
        clock.advance(15)
        fail(2, name="d")
        (message,) = watcher.turn()
        assert [(one.status, one.finding.job_name) for one in message.notices] == [("firing", "d")]

    def test_that_no_worker_lives_is_told_however_much_is_wrong(self, queue, clock, fail, monkeypatch) -> None:
        monkeypatch.setattr(watching, "FINDINGS_MAX", 1)
        for name in "abc":
            fail(1, name=name)
        queue.leave()
        queue.push("a")
        told = texts(Watcher(queue, AlertSettings(), clock=clock))
        assert told == ["Jobs are due, and no worker is alive.", "3 further alerts."]


def _broken() -> None:
    raise ValueError


class TestQueues:
    @pytest.fixture(autouse=True)
    def _jobs(self) -> None:
        for name in ("mail", "reports", "bulk"):
            job(name=name, queue=name)(lambda: None)

    def test_one_that_is_behind_by_its_own_limit(self, queue, clock) -> None:
        settings = AlertSettings(workers=False, oldest=("60", "reports=3600", "bulk=off"))
        watcher = Watcher(queue, settings, clock=clock)
        queue.push_many([("mail", None), ("reports", None), ("bulk", None)])
        queue.later(3000, "mail")
        clock.advance(59)
        assert texts(watcher) == []
        clock.advance(91)
        assert texts(watcher) == ["Queue mail is behind: its oldest due job has waited 2 min."]
        clock.advance(3600)
        assert len(texts(watcher)) == 2

    def test_one_that_is_full(self, queue, clock) -> None:
        settings = AlertSettings(**{**QUIET, "depth": ("2", "bulk=1000")})
        watcher = Watcher(queue, settings, clock=clock)
        queue.push_many([("mail", None)] * 2 + [("bulk", None)] * 5)
        assert texts(watcher) == []
        queue.push("mail")
        assert texts(watcher) == ["Queue mail is full: 3 jobs are due."]

    def test_jobs_are_counted_as_far_as_the_highest_limit_needs(self, queue, driver, clock, monkeypatch) -> None:
        asked: list[int] = []
        monkeypatch.setattr(driver, "queues", lambda *, counted_max: asked.append(counted_max) or [])
        Watcher(queue, AlertSettings(), clock=clock).look()
        Watcher(queue, AlertSettings(depth=("5", "bulk=50000")), clock=clock).look()
        assert asked == [1_000, 50_001]

    def test_a_paused_one_is_somebodys_wish(self, queue, clock) -> None:
        queue.push("mail")
        queue.pause("mail")
        clock.advance(10_000)
        assert texts(Watcher(queue, AlertSettings(), clock=clock)) == []

    def test_due_jobs_without_a_living_worker(self, queue, driver, clock) -> None:
        watcher = Watcher(queue, AlertSettings(oldest=()), clock=clock)
        assert texts(watcher) == []  # nothing to do, nobody missing
        queue.push("mail")
        assert texts(watcher) == ["Jobs are due, and no worker is alive."]
        driver.register(WorkerInfo(id="w", host="h", pid=1, queues=("mail",), concurrency=1, lease_s=60))
        assert texts(watcher) == []
        clock.advance(61)
        assert texts(watcher) == ["Jobs are due, and no worker is alive."]


class TestOutage:
    def test_a_store_that_stays_away_is_told_and_ends_no_other_alert(
        self, queue, driver, clock, fail, monkeypatch
    ) -> None:
        watcher = Watcher(queue, AlertSettings(failed_window=3600), clock=clock)
        fail(1)
        (message,) = watcher.turn()
        assert message.notices[0].status == "firing"

        def away() -> None:
            raise StoreUnavailable("no route")

        monkeypatch.setattr(driver, "now", away)
        clock.advance(30)
        assert watcher.turn() == []
        clock.advance(45)
        (message,) = watcher.turn()
        assert message.text.startswith("The store has not answered for 75 s.")
        monkeypatch.undo()
        clock.advance(10)
        (message,) = watcher.turn()
        assert [notice.text for notice in message.notices] == ["Over: The store has not answered for 75 s."]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('Traceback\n  File "a.py", line 1, in f\n    x\nValueError: a\nHint: b', ("ValueError", "a")),
        ('  File "a.py", line 1\n    x\n    ^\napp.errors.Declined', ("app.errors.Declined", "")),
        ("protojobs.errors.JobTimeout: the run outlasted", ("protojobs.errors.JobTimeout", "the run outlasted")),
        ("", ("an error", "")),
        ("  | nothing\n  | of use", ("an error", "")),
        ("the order of Jo Smith\nValueError: x", ("an error", "")),
        ("\x00\u202e", ("an error", "")),
    ],
)
def test_the_error_at_the_end_of_a_traceback(text: str, error: tuple[str, str]) -> None:
    assert error_type(text) == error


def test_names_are_fit_for_a_line() -> None:
    assert printable("a\r\nBcc: x\u202eb\u2028\x00") == "a??Bcc: x?b??"
    assert printable("x" * 10_000) == "x" * 97 + "..."
    assert [in_words(seconds) for seconds in (45, 720, 12_600)] == ["45 s", "12 min", "3.5 h"]


def test_limits_for_all_and_for_some() -> None:
    limits = Limits.parse("V", ("300", "reports=3600", "bulk=off", "a=b=5"))
    assert [limits.of(name) for name in ("mail", "reports", "bulk", "a=b")] == [300, 3600, None, 5]
    assert Limits.parse("V", ()).of("mail") is None
    for wrong in ("x", "reports=", "-1", "nan", "inf", "1e400"):
        with pytest.raises(OptionInvalid, match="V: .* is no limit"):
            Limits.parse("V", (wrong,))


def test_the_overlap_is_shorter_than_the_shortest_usual_window() -> None:
    assert timedelta(seconds=AlertSettings().failed_window) > module.OVERLAP
