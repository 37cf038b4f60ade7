"""`protojobs jobs`: list, show, cancel."""

from __future__ import annotations

import json

import pytest

from protojobs.port.lifecycle import JobState


@pytest.fixture
def three(push, type_) -> dict[str, str]:
    """A pending, a completed and a failed job."""
    made = {"completed": push("add", '{"a": 1, "b": 2}'), "failed": push("broken")}
    assert type_("worker", "math", "default", "--app", "shop", "--stop-when-empty").code == 0
    return {**made, "pending": push("mail.welcome", '{"email": "jo@example.com"}')}


class TestList:
    def test_newest_first_one_line_each(self, type_, three) -> None:
        lines = type_("jobs", "list").lines
        assert [line[0] for line in lines] == [three["pending"], three["failed"], three["completed"]]
        assert [line[1:5] for line in lines] == [
            ["emails", "mail.welcome", "pending", "0"],
            ["default", "broken", "failed", "1"],
            ["math", "add", "completed", "1"],
        ]
        assert all(line[5].startswith("20") and line[5].endswith("Z") for line in lines)

    @pytest.mark.parametrize(
        ("words", "found"),
        [
            (("--state", "failed"), ["failed"]),
            (("--state", "failed", "--state", "pending"), ["pending", "failed"]),
            (("--queue", "math"), ["completed"]),
            (("--name", "broken"), ["failed"]),
            (("--name", "broken", "--state", "pending"), []),
            (("--where", "data.email:*@example.com created:>-1h"), ["pending"]),
            (("-w", "-state:pending attempt:>=1", "--queue", "default"), ["failed"]),
            (("-w", "error:luck"), ["failed"]),
        ],
    )
    def test_only_what_is_asked_for(self, type_, three, words, found) -> None:
        typed = type_("jobs", "list", *words)
        assert typed.code == 0
        assert [line[0] for line in typed.lines] == [three[state] for state in found]
        assert ("No jobs match." in typed.err) is not bool(found)

    def test_page_by_page(self, type_, three) -> None:
        first = type_("jobs", "list", "--limit", "2")
        assert "--cursor " in first.err
        cursor = first.err.split("--cursor ")[1].strip()
        second = type_("jobs", "list", "--limit", "2", "--cursor", cursor)
        assert [line[0] for line in first.lines + second.lines] == [
            three["pending"],
            three["failed"],
            three["completed"],
        ]
        assert second.err == ""

    def test_more_than_a_page_of_the_driver(self, type_, queue) -> None:
        type_("push", "broken", "--app", "shop")
        queue.push_many([("broken", {})] * 600)
        assert len(type_("jobs", "list", "--limit", "1000").lines) == 601

    def test_in_json(self, type_, three) -> None:
        document = type_("jobs", "list", "--json", "--limit", "1").document
        assert document["schema"] == "protojobs/jobs.list@1"
        (job,) = document["items"]
        assert (job["id"], job["status"], job["data"]) == (three["pending"], "pending", {"email": "jo@example.com"})
        assert job["timeout"] == 60.0
        assert job["created_at"].endswith("Z")
        assert document["next"]
        assert type_("jobs", "list", "--json").document["next"] is None

    def test_nothing_there_is_an_empty_list_and_a_word(self, type_, url) -> None:
        typed = type_("jobs", "list")
        assert (typed.code, typed.out, typed.err) == (0, "", "There are no jobs.\n")

    def test_an_unknown_state_lists_the_known_ones(self, type_, url) -> None:
        typed = type_("jobs", "list", "--state", "done")
        assert typed.code == 2
        assert "'completed'" in typed.err


class TestShow:
    def test_everything_about_it(self, type_, three) -> None:
        typed = type_("jobs", "show", three["failed"])
        fields = dict(line for line in typed.lines if len(line) == 2)
        assert (fields["id"], fields["state"], fields["attempts"]) == (three["failed"], "failed", "1 of 1")
        assert fields["ended"].endswith("Z")
        assert "ValueError: no luck" in typed.out

    def test_in_json(self, type_, three, queue) -> None:
        document = type_("jobs", "show", three["failed"], "--json").document
        (failure,) = queue.failed_jobs()
        assert document["schema"] == "protojobs/jobs.show@1"
        assert document["item"]["failed_id"] == failure.id
        assert document["item"]["exception"] == failure.exception
        assert document["item"]["max_retries"] == 0

    def test_the_attempts_that_went_wrong(self, type_, push) -> None:
        job_id = push("flaky")
        type_("worker", "--app", "shop", "--stop-when-empty")
        assert "s  retried: RuntimeError: not today" in type_("jobs", "show", job_id).out
        (note,) = type_("jobs", "show", job_id, "--json").document["item"]["attempts_noted"]
        assert (note["attempt"], note["result"]) == (1, "retried")

    def test_data_is_laid_out(self, type_, three) -> None:
        assert '  {\n    "email": "jo@example.com"\n  }\n' in type_("jobs", "show", three["pending"]).out

    def test_one_that_is_not_there(self, type_, url) -> None:
        typed = type_("jobs", "show", "nope")
        assert (typed.code, typed.out) == (3, "")
        assert 'There is no job "nope".' in typed.err


class TestCancel:
    def test_a_pending_job_at_once_with_the_reason(self, type_, three, queue) -> None:
        typed = type_("jobs", "cancel", three["pending"], "--reason", "a mistake")
        assert (typed.code, typed.lines) == (0, [[three["pending"], "cancelled"]])
        job = queue.get(three["pending"])
        assert (job.status, job.reason) == (JobState.CANCELLED, "a mistake")

    def test_one_that_has_ended_is_a_conflict(self, type_, three) -> None:
        typed = type_("jobs", "cancel", three["completed"])
        assert (typed.code, typed.lines) == (4, [[three["completed"], "finished"]])

    def test_one_that_is_not_there(self, type_, url) -> None:
        assert type_("jobs", "cancel", "nope").code == 3

    def test_some_of_several(self, type_, three) -> None:
        typed = type_("jobs", "cancel", three["pending"], "nope", "--json")
        assert typed.code == 6
        assert [item["answer"] for item in typed.document["items"]] == ["cancelled", "missing"]

    def test_all_that_match(self, type_, three, queue) -> None:
        assert type_("jobs", "cancel", "-w", "queue:emails").code == 2
        assert type_("jobs", "cancel", "-w", "queue:emails", "--dry-run").lines == [["matching", "1"]]
        assert type_("jobs", "cancel", "-w", "queue:e*", "-y").lines == [["cancelled", "1"], ["refused", "0"]]
        assert queue.get(three["pending"]).status is JobState.CANCELLED
        assert type_("jobs", "cancel", "-w", "queue:emails", "-y").lines == [["cancelled", "0"], ["refused", "0"]]

    @pytest.mark.parametrize("words", [(), ("--dry-run",), ("x", "-w", "queue:a"), ("-w", "queue:a", "--reason", "r")])
    def test_contradictions(self, type_, url, words) -> None:
        assert type_("jobs", "cancel", *words).code == 2

    def test_ids_may_come_from_a_list(self, type_, three) -> None:
        listed = type_("jobs", "list", "--state", "pending").out
        assert type_("jobs", "cancel", "-", stdin=listed).lines == [[three["pending"], "cancelled"]]


class TestOddData:
    """What other hands have stored, or a shell has passed on, is shown or refused, and ends no command."""

    DEEP = "[" * 200_000

    @pytest.fixture
    def deep(self, push, queue) -> str:
        import sqlite3

        job_id = push("broken")
        with sqlite3.connect("jobs.db") as connection:
            connection.execute("update jobs set data = ?", (self.DEEP + "]" * 200_000,))
        return job_id

    def test_deep_json_is_refused_as_data(self, type_, url) -> None:
        typed = type_("push", "broken", "-", "--app", "shop", stdin=self.DEEP)
        assert (typed.code, "This is not JSON" in typed.err) == (2, True)

    def test_deep_json_that_is_stored_is_shown_as_it_is(self, type_, deep: str) -> None:
        assert self.DEEP in type_("jobs", "show", deep).out
        assert type_("jobs", "show", deep, "--json").document["item"]["data"].startswith(self.DEEP)
        assert [one["id"] for one in type_("jobs", "list", "--json").document["items"]] == [deep]

    @pytest.mark.parametrize(
        "words", [("jobs", "show"), ("explain",), ("jobs", "list", "--queue"), ("schedules", "show")]
    )
    def test_an_argument_that_is_no_text_is_refused(self, type_, url, words: tuple[str, ...]) -> None:
        typed = type_(*words, "\udcff")
        assert (typed.code, "is no UTF-8 text" in typed.err) == (2, True)


class TestResults:
    @pytest.fixture
    def sums(self, push, type_) -> dict[str, str]:
        """One that keeps its result, one that fails, one that is not run."""
        made = {
            "completed": push("sum", '{"a": 1, "b": 2}'),
            "failed": push("broken"),
            "plain": push("add", '{"a":1,"b":1}'),
        }
        assert type_("worker", "math", "default", "--app", "shop", "--stop-when-empty").code == 0
        return {**made, "pending": push("sum", '{"a": 1, "b": 2}')}

    def test_it_is_printed_as_json(self, type_, sums) -> None:
        typed = type_("jobs", "result", sums["completed"])
        assert (typed.code, typed.out) == (0, '{\n  "sum": 3\n}\n')
        document = type_("jobs", "result", sums["completed"], "--json").document
        assert document == {
            "schema": "protojobs/jobs.result@1",
            "item": {"id": sums["completed"], "result": {"sum": 3}},
        }

    @pytest.mark.parametrize(
        ("which", "code", "said"),
        [
            ("failed", 4, "has failed: ValueError: no luck"),
            ("plain", 4, "has completed, and its result was not kept."),
            ("pending", 4, "has not ended: it is pending."),
            ("missing", 3, "The store has no job missing."),
        ],
    )
    def test_where_there_is_none_it_says_why(self, type_, sums, which: str, code: int, said: str) -> None:
        typed = type_("jobs", "result", sums.get(which, which))
        assert (typed.code, typed.out) == (code, "")
        assert said in typed.err

    def test_it_waits_with_a_bound(self, type_, sums) -> None:
        typed = type_("jobs", "result", sums["pending"], "--wait", "0.1s")
        assert typed.code == 4
        assert "has not ended within 0.1 s: it is pending." in typed.err
        assert type_("jobs", "result", sums["completed"], "--wait", "30s").code == 0

    def test_the_job_shows_it_too(self, type_, sums) -> None:
        assert 'result:\n  {\n    "sum": 3\n  }\n' in type_("jobs", "show", sums["completed"]).out
        assert type_("jobs", "show", sums["completed"], "--json").document["item"]["result"] == {"sum": 3}
        assert "result:" not in type_("jobs", "show", sums["plain"]).out


class TestWatch:
    def test_it_shows_each_change_until_the_end(self, type_, three) -> None:
        typed = type_("jobs", "watch", three["completed"])
        ((at, *others),) = typed.lines
        assert (typed.code, others) == (0, ["completed", "attempt 1"])
        assert at.startswith("20")
        assert type_("jobs", "watch", three["failed"]).code == 4

    def test_it_ends_in_time(self, type_, three) -> None:
        typed = type_("jobs", "watch", three["pending"], "--for", "0.1s")
        assert typed.code == 4
        assert [line[1] for line in typed.lines] == ["pending"]

    def test_it_is_a_line_of_json_for_each_change(self, type_, three) -> None:
        (line,) = type_("jobs", "watch", three["completed"], "--json").out.splitlines()
        assert json.loads(line)["status"] == "completed"

    def test_an_unknown_job_is_told(self, type_, three) -> None:
        assert type_("jobs", "watch", "missing").code == 3
