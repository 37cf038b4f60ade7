"""`protojobs queues`, `stats` and `workers`: where the jobs are, and who works them."""

from __future__ import annotations

import pytest

from protojobs import job
from protojobs.inspector import Inspector
from protojobs.port.records import QueueInfo, WorkerInfo


@pytest.fixture
def shop(push, type_) -> None:
    push("mail.welcome", '{"email": "a"}')
    push("mail.welcome", '{"email": "b"}', "--delay", "1h")
    push("add", '{"a": 1, "b": 2}')
    push("broken")
    assert type_("worker", "math", "default", "--app", "shop", "--stop-when-empty").code == 0


class TestStats:
    def test_a_line_for_each_queue_and_one_for_all(self, type_, shop) -> None:
        assert type_("stats").lines == [
            ["default", "0", "0", "0", "0", "1", "0", "1"],
            ["emails", "2", "1", "0", "0", "0", "0", "2"],
            ["math", "0", "0", "0", "1", "0", "0", "1"],
            ["TOTAL", "2", "1", "0", "1", "1", "0", "4"],
        ]

    def test_of_one_queue(self, type_, shop) -> None:
        assert type_("stats", "emails").lines == [["emails", "2", "1", "0", "0", "0", "0", "2"]]

    def test_of_a_queue_that_is_not_there(self, type_, shop) -> None:
        typed = type_("stats", "email")
        assert typed.lines == [["email", *["0"] * 7]]
        assert 'Did you mean "emails"?' in typed.err

    def test_in_json(self, type_, shop) -> None:
        document = type_("--json", "stats").document
        assert document["schema"] == "protojobs/stats@1"
        assert [item["queue"] for item in document["items"]] == ["default", "emails", "math"]
        assert document["total"]["total"] == 4
        assert document["next"] is None

    def test_of_an_empty_store(self, type_, url) -> None:
        typed = type_("stats")
        assert (typed.code, typed.out, typed.err) == (0, "", "There are no jobs.\n")


class TestPausing:
    def test_shows_in_the_list_and_stops_the_work(self, type_, shop, queue) -> None:
        assert type_("queues", "pause", "emails").code == 0
        assert [line[:2] for line in type_("queues", "list").lines] == [
            ["default", "active"],
            ["emails", "paused"],
            ["math", "active"],
        ]
        typed = type_("worker", "emails", "--app", "shop", "--stop-when-empty")
        assert 'queue "emails" is paused' in typed.err
        assert queue.stats("emails").completed == 0

    def test_twice_is_no_error_and_a_word(self, type_, shop) -> None:
        type_("queues", "pause", "emails")
        typed = type_("queues", "pause", "emails")
        assert typed.code == 0
        assert "was paused already" in typed.err

    def test_of_an_unknown_queue_works_and_warns(self, type_, shop) -> None:
        typed = type_("queues", "pause", "email")
        assert typed.code == 0
        assert 'has no jobs yet. Did you mean "emails"?' in typed.err

    def test_resume_undoes_it(self, type_, shop) -> None:
        type_("queues", "pause", "emails")
        assert type_("queues", "resume", "emails", "--json").document["item"] == {
            "queue": "emails",
            "is_paused": False,
            "has_changed": True,
        }
        assert "was not paused" in type_("queues", "resume", "emails").err


class TestClear:
    def test_counts_shows_and_refuses_without_a_yes(self, type_, shop, queue) -> None:
        typed = type_("queues", "clear", "emails")
        assert (typed.code, typed.out) == (2, "")
        assert 'Delete 2 jobs of queue "emails" for good:\n  2 pending' in typed.err
        assert queue.stats("emails").pending == 2

    def test_with_a_yes(self, type_, shop, queue) -> None:
        typed = type_("queues", "clear", "emails", "--yes", "--json")
        assert typed.document["item"] == {
            "queue": "emails", "pending": 2, "completed": 0, "failed": 0, "cancelled": 0, "total": 2,
        }  # fmt: skip
        assert queue.stats("emails").total == 0
        assert queue.stats("default").failed == 1

    def test_of_none_asks_nothing_and_deletes_nothing(self, type_, shop, queue, monkeypatch) -> None:
        @job(name="late", queue="empty")
        def late() -> None: ...

        queue.pause("empty")
        look = Inspector.queue

        def then_a_push(inspector: Inspector, name: str) -> QueueInfo | None:
            found = look(inspector, name)
            queue.push("late")
            return found

        monkeypatch.setattr(Inspector, "queue", then_a_push)
        typed = type_("queues", "clear", "empty")
        assert (typed.code, typed.lines[-1]) == (0, ["total", "0"])
        assert queue.stats("empty").pending == 1

    def test_of_a_queue_that_is_not_there(self, type_, shop) -> None:
        typed = type_("queues", "clear", "email", "--yes")
        assert typed.code == 3
        assert 'Did you mean "emails"?' in typed.err


class TestWorkers:
    def test_alive_and_lapsed(self, type_, queue) -> None:
        def info(name: str, lease_s: float) -> WorkerInfo:
            return WorkerInfo(id=name, host="h", pid=7, queues=("a", "b"), concurrency=3, lease_s=lease_s)

        queue.driver.register(info("01890000-0000-7000-8000-00000000000a", 60))
        queue.driver.register(info("01890000-0000-7000-8000-00000000000b", 0))
        lines = type_("workers").lines
        assert [(line[3], line[5], line[8]) for line in lines] == [("alive", "3", "a,b"), ("lapsed", "3", "a,b")]
        document = type_("workers", "--json").document
        assert [item["state"] for item in document["items"]] == ["alive", "lapsed"]

    def test_none(self, type_, url) -> None:
        assert type_("workers").err == "No worker is running.\n"
