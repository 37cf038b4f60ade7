"""`protojobs failed`: list, show, retry, forget; in bulk only after counting, showing and asking."""

from __future__ import annotations

import pytest

from protojobs.cli.acting import bulk
from protojobs.cli.showing.output import Output
from protojobs.inspector import counting


@pytest.fixture
def fail(push, type_, queue):
    """`fail(3)` -> the failed_jobs ids of three more failed jobs, newest first."""

    def make(number: int, name: str = "default") -> list[str]:
        for index in range(number):
            push("broken", f'{{"text": "no luck {index}"}}', "--queue", name)
        assert type_("worker", name, "--app", "shop", "--stop-when-empty").code == 0
        return [job.id for job in queue.failed_jobs(name)]

    return make


def test_list_tells_the_last_line_of_each_traceback(fail, type_) -> None:
    ids = fail(2)
    lines = type_("failed", "list").lines
    assert [line[0] for line in lines] == ids
    assert [line[1:4] for line in lines] == [["default", "broken", "1"]] * 2
    assert {line[5] for line in lines} == {"ValueError: no luck 0", "ValueError: no luck 1"}


def test_list_of_one_queue_page_by_page_in_json(fail, type_) -> None:
    fail(1, "other")
    ids = fail(2)
    first = type_("failed", "list", "--queue", "default", "--limit", "1", "--json").document
    assert first["schema"] == "protojobs/failed.list@1"
    second = type_("failed", "list", "--queue", "default", "--limit", "1", "--json", "--cursor", first["next"]).document
    assert [item["id"] for item in first["items"] + second["items"]] == ids
    assert second["next"] is None


def test_list_of_those_that_match(fail, type_, queue) -> None:
    fail(3)
    assert [line[5] for line in type_("failed", "list", "-w", "data.text:*1").lines] == ["ValueError: no luck 1"]
    mark = next(queue.failed_jobs()).fingerprint
    assert len(type_("failed", "list", "-w", f"fp:{mark[:6]}").lines) == 3
    typed = type_("failed", "list", "-w", "state:pending")
    assert (typed.code, typed.out, typed.err) == (0, "", "No failed jobs match.\n")


def test_none_is_an_empty_list_and_a_word(type_, url) -> None:
    typed = type_("failed", "list")
    assert (typed.code, typed.out, typed.err) == (0, "", "There are no failed jobs.\n")


@pytest.mark.parametrize("by", ["id", "job_id"])
def test_show_has_the_whole_traceback_by_either_id(fail, type_, queue, by) -> None:
    fail(1)
    (failure,) = queue.failed_jobs()
    typed = type_("failed", "show", getattr(failure, by))
    assert typed.code == 0
    assert "Traceback (most recent call last):" in typed.out
    assert "ValueError: no luck 0" in typed.out
    assert type_("failed", "show", getattr(failure, by), "--json").document["item"]["exception"] == failure.exception


def test_show_of_one_that_is_not_there(type_, url) -> None:
    typed = type_("failed", "show", "nope")
    assert typed.code == 3
    assert 'There is no failed job "nope".' in typed.err


class TestRetry:
    def test_by_id(self, fail, type_, queue) -> None:
        (one,) = fail(1)
        assert type_("failed", "retry", one).lines == [[one, "requeued"]]
        assert (queue.stats().pending, queue.stats().failed) == (1, 0)

    def test_by_the_id_of_the_job(self, fail, type_, queue) -> None:
        fail(1)
        (failure,) = queue.failed_jobs()
        assert type_("failed", "retry", failure.job_id).lines == [[failure.job_id, "requeued"]]

    def test_one_that_is_not_there(self, type_, url) -> None:
        typed = type_("failed", "retry", "nope", "--json")
        assert (typed.code, typed.document["items"]) == (3, [{"id": "nope", "answer": "missing"}])

    def test_some_of_several(self, fail, type_) -> None:
        (one,) = fail(1)
        typed = type_("failed", "retry", one, "nope")
        assert (typed.code, typed.lines) == (6, [[one, "requeued"], ["nope", "missing"]])

    def test_all_counts_shows_and_refuses_without_a_yes(self, fail, type_, queue) -> None:
        fail(7)
        typed = type_("failed", "retry", "--all")
        assert (typed.code, typed.out) == (2, "")
        assert "Run again: 7 failed jobs." in typed.err
        assert typed.err.count("ValueError: no luck") == 5
        assert "and 2 more" in typed.err
        assert "--yes" in typed.err
        assert queue.stats().failed == 7

    def test_all_with_a_yes(self, fail, type_, queue) -> None:
        fail(3)
        typed = type_("failed", "retry", "--all", "--yes")
        assert (typed.code, typed.lines) == (0, [["requeued", "3"], ["refused", "0"]])
        assert queue.stats().pending == 3

    def test_all_of_a_queue(self, fail, type_, queue) -> None:
        fail(2)
        fail(1, "other")
        assert (
            type_("failed", "retry", "--all", "--queue", "other", "--yes", "--json").document["item"]["requeued"] == 1
        )
        assert queue.stats("default").failed == 2

    def test_more_than_a_page(self, push, type_, queue) -> None:
        push("broken")
        queue.push_many([("broken", {})] * 700)
        type_("worker", "--app", "shop", "--stop-when-empty")
        assert type_("failed", "retry", "--all", "--yes").lines[0] == ["requeued", "701"]
        assert queue.stats().pending == 701

    def test_none_at_all(self, type_, url) -> None:
        assert type_("failed", "retry", "--all").code == 0

    def test_all_that_match_counted_first(self, fail, type_, queue) -> None:
        fail(3)
        dry = type_("failed", "retry", "-w", "data.text:*2,*1", "--dry-run")
        assert (dry.code, dry.lines) == (0, [["matching", "2"]])
        assert "Run again: 2 failed jobs. Nothing was done." in dry.err
        assert (type_("failed", "retry", "-w", "data.text:*2").code, queue.stats().failed) == (2, 3)
        done = type_("failed", "retry", "-w", 'error:"no luck 2"', "--yes", "--json")
        assert done.document["item"] == {"requeued": 1, "refused": 0}
        assert (queue.stats().pending, queue.stats().failed) == (1, 2)

    def test_those_that_lie_deeper_than_is_counted(self, fail, push, type_, queue, monkeypatch) -> None:
        monkeypatch.setattr(counting, "COUNT_S", -1.0)  # over after the first page
        fail(1, "deep")
        queue.push_many([("broken", {"text": "above it"})] * 300)
        type_("worker", "--app", "shop", "--stop-when-empty")
        words = ("failed", "retry", "-w", 'data.text:"no luck 0"')
        dry = type_(*words, "--dry-run")
        assert (dry.code, dry.lines) == (0, [["matching", ""]])
        assert "Run again: an unknown number of failed jobs, none among the first. Nothing was done." in dry.err
        assert type_(*words, "--dry-run", "--json").document["item"] == {"matching": None, "is_capped": True}
        assert type_(*words).code == 2, "it asks"
        assert type_(*words, "--yes").lines == [["requeued", "1"], ["refused", "0"]]
        assert queue.stats("deep").pending == 1

    def test_a_query_that_means_nothing(self, type_, url) -> None:
        typed = type_("failed", "retry", "-w", "queu:x", "--yes")
        assert typed.code == 2
        assert 'Did you mean "queue"?' in typed.err

    def test_it_stands_in_the_audit_log(self, fail, type_, queue) -> None:
        (one,) = fail(1)
        type_("failed", "retry", one)
        (note,) = queue.driver.actions().actions
        assert (note.action, note.target, note.count) == ("retry", one, 1)
        assert note.actor.startswith("cli:")

    @pytest.mark.parametrize(
        "words", [(), ("x", "--all"), ("x", "--queue", "q"), ("x", "-w", "a"), ("x", "--dry-run"), ("--dry-run",)]
    )
    def test_contradictions(self, type_, url, words) -> None:
        assert type_("failed", "retry", *words).code == 2


class TestForget:
    @pytest.mark.parametrize("words", [("--all",), ("-w", "error:luck")])
    def test_what_fails_while_a_person_is_asked_stays(self, fail, type_, queue, monkeypatch, words) -> None:
        fail(2)
        asked: list[str] = []

        def slowly(_out: Output, what: str, _examples: list[str], *, is_agreed: bool) -> None:
            asked.append(what)
            queue.push_many([("broken", {})] * 3)
            queue.work("default", 3)

        monkeypatch.setattr(bulk, "confirm", slowly)
        assert type_("failed", "forget", *words, "--app", "shop").lines == [["forgotten", "2"], ["refused", "0"]]
        assert asked == ["Forget: 2 failed jobs."]
        assert queue.stats().failed == 3

    def test_by_id(self, fail, type_, queue) -> None:
        one, _ = fail(2)
        assert type_("failed", "forget", one).lines == [[one, "forgotten"]]
        assert queue.stats().failed == 1

    def test_one_that_is_not_there(self, type_, url) -> None:
        assert type_("failed", "forget", "nope").code == 3

    def test_all_refuses_without_a_yes(self, fail, type_, queue) -> None:
        fail(1)
        typed = type_("failed", "forget", "--all")
        assert typed.code == 2
        assert "Forget: 1 failed job." in typed.err
        assert queue.stats().failed == 1

    def test_all_with_a_yes(self, fail, type_, queue) -> None:
        fail(2)
        assert type_("failed", "forget", "--all", "-y").lines == [["forgotten", "2"], ["refused", "0"]]
        assert queue.stats().total == 0

    def test_those_of_a_list_only_with_a_yes(self, fail, type_, queue) -> None:
        fail(2)
        listed = type_("failed", "list").out
        assert type_("failed", "forget", "-", stdin=listed).code == 2
        assert queue.stats().failed == 2
        assert type_("failed", "forget", "-", "--yes", stdin=listed).code == 0
        assert queue.stats().failed == 0


class TestOddQueues:
    """`--queue` names one queue, whatever its name holds."""

    @pytest.mark.parametrize("odd", ["*", "a*", 'a"b', "a\\", 'a, "b" *'])
    def test_what_is_forgotten_is_of_this_very_queue(self, fail, type_, queue, odd) -> None:
        names = {"ab", "a", 'a*"b', odd, "other"}
        for name in names:
            fail(1, name)
        assert [one["queue"] for one in type_("failed", "list", "--queue", odd, "--json").document["items"]] == [odd]
        typed = type_("failed", "forget", "--all", "--queue", odd, "--yes")
        assert (typed.code, typed.lines) == (0, [["forgotten", "1"], ["refused", "0"]])
        assert {job.queue for job in queue.failed_jobs()} == names - {odd}

    @pytest.mark.parametrize("command", [("failed", "forget"), ("failed", "retry"), ("jobs", "cancel")])
    def test_a_blank_condition_is_not_all_of_them(self, fail, push, type_, queue, command) -> None:
        fail(1)
        push("add", '{"a": 1, "b": 2}')
        typed = type_(*command, "--where", " ", "--yes")
        assert (typed.code, "--where is blank" in typed.err) == (2, True)
        assert (queue.stats().failed, queue.stats().pending) == (1, 1)

    def test_an_empty_queue_is_not_all_of_them(self, fail, type_, queue) -> None:
        fail(1)
        typed = type_("failed", "forget", "--all", "--queue", "", "--yes")
        assert (typed.code, "--queue is empty" in typed.err, queue.stats().failed) == (2, True, 1)
