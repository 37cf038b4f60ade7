"""`protojobs schedules`: what is stored, in words and times; each verb; and rows that mean nothing here."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from protojobs import Scheduler
from protojobs.clock import SYSTEM_CLOCK
from protojobs.errors import StoreUnavailable
from protojobs.port.schedules import Misfire, Overlap

FAR = datetime(2090, 7, 3, 7, 0, tzinfo=UTC)  # a Monday; in Paris it is nine o'clock


@pytest.fixture
def in_india(monkeypatch):
    """This machine is in a zone of its own."""
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("verb", ["show", "pause", "resume", "run", "next"])
def test_an_id_that_is_no_text_is_refused_before_any_schedule_is_looked_for(type_, keep, verb) -> None:
    keep("weekly")
    typed = type_("schedules", verb, "\udcff")
    assert typed.code == 2
    assert "is no UTF-8 text" in typed.err


class TestUnreadable:
    """What a newer release, or a foreign hand, has stored. `protojobs doctor` tells it too."""

    @pytest.fixture
    def odd(self, queue, keep):
        keep("odd")
        keep("weekly")
        with queue.driver.engine.begin() as conn:
            conn.exec_driver_sql("update schedules set misfire = 'newest_first' where id = 'odd'")

    def test_is_listed_and_told_beside_the_others(self, type_, odd) -> None:
        typed = type_("schedules", "list")
        assert [(line[0], line[4]) for line in typed.lines] == [("odd", "unreadable"), ("weekly", "active")]
        assert '"odd" cannot be read here' in typed.err and "newest_first" in typed.err
        items = type_("schedules", "list", "--json").document["items"]
        assert [(item["id"], item["state"]) for item in items] == [("odd", "unreadable"), ("weekly", "active")]

    def test_is_shown_with_what_does_not_fit_and_what_to_do(self, type_, odd) -> None:
        typed = type_("schedules", "show", "odd")
        assert typed.code == 0
        assert "newest_first" in typed.out
        assert "protojobs schedules remove odd" in typed.err

    def test_is_removed(self, type_, odd) -> None:
        typed = type_("schedules", "remove", "odd", "--yes")
        assert typed.code == 0
        assert [line[0] for line in type_("schedules", "list").lines] == ["weekly"]


class TestList:
    def test_each_by_id_in_a_pipe(self, type_, keep) -> None:
        keep("weekly", last_due_at=FAR - timedelta(days=7))
        keep("pulse", "every 5400", timezone="UTC", is_paused=True)
        keep("old", next_due_at=None)
        typed = type_("schedules", "list")
        assert typed.lines == [
            ["old", "broken", "At 09:00 on Monday", "Europe/Paris", "ended", "", ""],
            ["pulse", "broken", "Every 1 h 30 min", "UTC", "paused", "", ""],
            ["weekly", "broken", "At 09:00 on Monday", "Europe/Paris", "active",
             "2090-07-03T07:00:00.000000Z", "2090-06-26T07:00:00.000000Z"],
        ]  # fmt: skip
        assert (typed.code, typed.err) == (0, "")

    def test_on_a_terminal_a_table_with_how_soon(self, on_terminal, keep) -> None:
        keep("weekly", next_due_at=SYSTEM_CLOCK.now() + timedelta(hours=3, seconds=30))
        out = on_terminal("schedules", "list").out
        assert all(word in out for word in ("id", "when", "zone", "state", "next due", "last due"))
        assert "At 09:00 on Monday" in out
        assert "in 3h" in out

    def test_in_json_everything_that_is_stored(self, type_, keep) -> None:
        keep("weekly", misfire=Misfire.SKIP, jitter=30.0)
        document = type_("schedules", "list", "--json").document
        assert document["schema"] == "protojobs/schedules.list@1"
        (item,) = document["items"]
        assert item["data"] == {"text": "x"}
        assert item["next_due_at"] == "2090-07-03T07:00:00Z"
        told = {name: item[name] for name in ("words", "state", "problem", "misfire", "jitter", "spec", "is_paused")}
        assert told == {
            "words": "At 09:00 on Monday", "state": "active", "problem": None, "misfire": "skip", "jitter": 30.0,
            "spec": "0 9 * * MON", "is_paused": False,
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"timezone": "Mars/Olympus"}, "'Mars/Olympus' is no time zone known here"),
            ({"spec": "0 25 * * *"}, "25 is not between 0 and 23"),
            ({"spec": "every now and then"}, "is no interval"),
            ({"spec": "every nan"}, "is no interval"),
            ({"spec": ""}, "0 fields"),
        ],
        ids=lambda value: str(value),
    )
    def test_one_that_means_nothing_here_is_listed_and_told(self, type_, keep, changes, problem) -> None:
        keep("alien", **changes)
        keep("weekly")
        typed = type_("schedules", "list")
        assert typed.code == 0
        assert [(line[0], line[4]) for line in typed.lines] == [("alien", "broken"), ("weekly", "active")]
        assert '"alien" cannot fire here' in typed.err
        assert problem in typed.err
        shown = type_("schedules", "show", "alien")
        assert shown.code == 0
        assert problem in shown.out
        coming = type_("schedules", "next", "-n", "1")
        assert [line[0] for line in coming.lines] == ["weekly"]
        assert '"alien" cannot fire here' in coming.err
        assert "alien" in type_("schedules", "list", "--json").out

    def test_one_that_nobody_fires_is_told(self, type_, keep) -> None:
        keep("weekly", next_due_at=SYSTEM_CLOCK.now() - timedelta(minutes=5))
        expected = '"weekly" is overdue: is a worker running, or protojobs scheduler?'
        assert expected in type_("schedules", "list").err
        assert expected in type_("schedules", "show", "weekly").err
        assert expected in type_("schedules", "next").err
        keep("other", next_due_at=SYSTEM_CLOCK.now() - timedelta(minutes=5), is_paused=True)
        keep("third", next_due_at=SYSTEM_CLOCK.now() - timedelta(minutes=5))
        assert "2 schedules are overdue" in type_("schedules", "list").err

    def test_none(self, type_, url) -> None:
        typed = type_("schedules", "list")
        assert (typed.code, typed.out) == (0, "")
        assert "There are no schedules." in typed.err

    def test_hostile_text_is_escaped(self, type_, keep) -> None:
        keep("weekly", job_name="red\x1b[31m", timezone="\x1b]0;x")
        for words in (("list",), ("show", "weekly"), ("next",), ("list", "--json")):
            typed = type_("schedules", *words)
            assert typed.code == 0
            assert "\x1b" not in typed.out + typed.err


class TestShow:
    def test_everything_in_words(self, type_, keep) -> None:
        keep("weekly", misfire=Misfire.ALL, overlap=Overlap.QUEUE_ONE, jitter=30.0, catch_up=900.0)
        shown = {line[0]: line[1] for line in type_("schedules", "show", "weekly").lines if len(line) == 2}
        assert (shown["when"], shown["expression"], shown["zone"]) == (
            "At 09:00 on Monday",
            "0 9 * * MON",
            "Europe/Paris",
        )
        assert shown["misfire"] == "all: each time that came while no worker or scheduler ran fires, the oldest first"
        assert shown["catch up"] == "900 s: what is later is missed"
        assert "one runs, at most one waits" in shown["overlap"]
        assert shown["jitter"] == "its job is due up to 30 s after the time"
        assert (shown["job"], shown["class"], shown["queue"]) == ("broken", "shop.broken", "reports")

    def test_what_the_other_choices_mean(self, type_, keep) -> None:
        keep("weekly", misfire=Misfire.SKIP, overlap=Overlap.SKIP)
        out = type_("schedules", "show", "weekly").out
        assert "misfire\tskip: a time that is more than two minutes late is missed" in out
        assert "catch up\tnot used" in out
        assert "overlap\tskip: a time is passed over while the job before it waits or runs" in out
        assert "jitter\tnone" in out

    def test_the_next_five_times_on_three_clocks(self, type_, keep, in_india) -> None:
        keep("weekly")
        out = type_("schedules", "show", "weekly").out
        assert "Mon 2090-07-03 09:00:00+02:00  2090-07-03 12:30:00+05:30  2090-07-03 07:00:00Z" in out
        assert out.count("Mon 20") == 5
        item = type_("schedules", "show", "weekly", "--json").document["item"]
        assert len(item["next"]) == 5
        assert item["next"][0] == {
            "due_at": "2090-07-03T07:00:00.000000Z",
            "in_zone": "2090-07-03T09:00:00+02:00",
            "here": "2090-07-03T12:30:00+05:30",
        }

    def test_the_last_job_and_how_to_see_it(self, type_, keep) -> None:
        keep("weekly", last_job_id="01a20dda-de5f-7612-85cd-60b99b055458")
        typed = type_("schedules", "show", "weekly")
        assert "last job\t01a20dda-de5f-7612-85cd-60b99b055458" in typed.out
        assert "protojobs jobs show 01a20dda-de5f-7612-85cd-60b99b055458" in typed.err

    def test_a_paused_one_shows_what_would_come(self, type_, keep) -> None:
        keep("weekly", is_paused=True, next_due_at=datetime(2020, 1, 6, 8, tzinfo=UTC))
        out = type_("schedules", "show", "weekly").out
        assert "next 5, were it resumed now:" in out
        assert "2020-" not in out

    def test_one_that_has_ended_shows_no_times(self, type_, keep) -> None:
        keep("weekly", next_due_at=None)
        typed = type_("schedules", "show", "weekly")
        assert "state\tended" in typed.out
        assert "Mon" not in typed.out.replace("At 09:00 on Monday", "")


class TestNext:
    def test_of_all_in_order(self, type_, keep, in_india) -> None:
        keep("weekly")
        keep("daily", "0 12 * * *", timezone="UTC", next_due_at=FAR + timedelta(hours=5))
        lines = type_("schedules", "next", "-n", "3").lines
        assert [line[0] for line in lines] == ["weekly", "daily", "daily"]
        assert lines[0][1:] == [
            "2090-07-03T07:00:00.000000Z",
            "Mon 2090-07-03 09:00:00+02:00",
            "2090-07-03 12:30:00+05:30",
            "2090-07-03 07:00:00Z",
        ]

    def test_of_one(self, type_, keep) -> None:
        keep("weekly")
        keep("daily", "0 12 * * *", timezone="UTC")
        assert [line[0] for line in type_("schedules", "next", "weekly", "-n", "2").lines] == ["weekly"] * 2
        document = type_("schedules", "next", "weekly", "-n", "1", "--json").document
        assert document["schema"] == "protojobs/schedules.next@1"
        assert document["items"][0]["id"] == "weekly"

    def test_ten_by_default_and_fewer_where_it_ends(self, type_, keep) -> None:
        keep("weekly", end_at=FAR + timedelta(days=8))
        assert len(type_("schedules", "next").lines) == 2
        keep("daily", "0 12 * * *", next_due_at=FAR)
        assert len(type_("schedules", "next").lines) == 10

    def test_paused_ones_are_left_out_and_counted(self, type_, keep) -> None:
        keep("weekly", is_paused=True)
        typed = type_("schedules", "next")
        assert (typed.code, typed.out) == (0, "")
        assert "1 paused schedule not shown." in typed.err
        one = type_("schedules", "next", "weekly", "-n", "1")
        assert len(one.lines) == 1
        assert "is paused: these would come, were it resumed now" in one.err

    def test_an_overdue_time_comes_first_and_then_the_future(self, type_, keep) -> None:
        now = SYSTEM_CLOCK.now()
        keep("weekly", next_due_at=now - timedelta(days=30))
        first, second = (datetime.fromisoformat(line[1]) for line in type_("schedules", "next", "-n", "2").lines)
        assert first < now < second


class TestPausing:
    def test_stops_it_and_resume_undoes_it(self, type_, keep, queue) -> None:
        keep("weekly")
        assert type_("schedules", "pause", "weekly", "--json").document == {
            "schema": "protojobs/schedules.pause@1",
            "item": {"id": "weekly", "is_paused": True, "has_changed": True, "next_due_at": None},
        }
        assert Scheduler(queue).get("weekly").is_paused
        typed = type_("schedules", "resume", "weekly")
        assert typed.lines[:2] == [["id", "weekly"], ["state", "active"]]
        assert typed.lines[2][0] == "next due"
        assert datetime.fromisoformat(typed.lines[2][1]) > SYSTEM_CLOCK.now()
        assert not Scheduler(queue).get("weekly").is_paused

    def test_twice_is_no_error_and_a_word(self, type_, keep) -> None:
        keep("weekly")
        typed = type_("schedules", "resume", "weekly")
        assert (typed.code, '"weekly" was not paused.' in typed.err) == (0, True)
        type_("schedules", "pause", "weekly")
        typed = type_("schedules", "pause", "weekly")
        assert (typed.code, '"weekly" was paused already.' in typed.err) == (0, True)


class TestRun:
    def test_pushes_its_job_and_prints_the_id(self, type_, keep, queue) -> None:
        keep("weekly", is_paused=True)
        typed = type_("schedules", "run", "weekly")
        assert (typed.code, typed.err) == (0, "")
        job = queue.get(typed.out.strip())
        assert (job.queue, job.job_name, job.data) == ("reports", "broken", '{"text": "x"}')
        assert Scheduler(queue).get("weekly").next_due_at == FAR

    def test_in_json(self, type_, keep, queue) -> None:
        keep("weekly")
        item = type_("schedules", "run", "weekly", "--json").document["item"]
        assert item["schedule"] == "weekly"
        assert queue.get(item["id"]) is not None

    def test_without_an_answer_it_says_how_to_find_out(self, type_, keep, monkeypatch) -> None:
        def enqueue(self: object, jobs: object) -> object:
            raise StoreUnavailable("away")

        keep("weekly")
        monkeypatch.setattr("protojobs_sqlalchemy.SQLAlchemyDriver.enqueue", enqueue)
        monkeypatch.setenv("PROTOJOBS_PUSH_TIMEOUT", "0.1")
        typed = type_("schedules", "run", "weekly")
        assert (typed.code, typed.out) == (5, "")
        assert "try: protojobs jobs show 0" in typed.err
        assert "--id" not in typed.err


class TestRemove:
    def test_refuses_without_a_yes(self, type_, keep, queue) -> None:
        keep("weekly")
        typed = type_("schedules", "remove", "weekly")
        assert (typed.code, typed.out) == (2, "")
        assert 'Remove schedule "weekly" for good:\n  broken: At 09:00 on Monday (Europe/Paris)' in typed.err
        assert Scheduler(queue).get("weekly") is not None

    def test_with_a_yes(self, type_, keep, queue) -> None:
        keep("weekly")
        typed = type_("schedules", "remove", "weekly", "--yes", "--json")
        assert typed.document["item"] == {"id": "weekly", "has_changed": True}
        assert Scheduler(queue).get("weekly") is None

    def test_a_person_may_say_no(self, on_terminal, keep, queue) -> None:
        keep("weekly")
        typed = on_terminal("schedules", "remove", "weekly", keys="n\n")
        assert (typed.code, "Nothing was done." in typed.out) == (2, True)
        assert Scheduler(queue).get("weekly") is not None


@pytest.mark.parametrize("words", [("show",), ("next",), ("pause",), ("resume",), ("run",), ("remove", "--yes")])
def test_an_unknown_id_is_not_found_with_what_was_meant(type_, keep, words) -> None:
    keep("weekly")
    typed = type_("schedules", words[0], "wekly", *words[1:])
    assert (typed.code, typed.out) == (3, "")
    assert 'There is no schedule "wekly".' in typed.err
    assert 'Did you mean "weekly"?' in typed.err
    assert "try: protojobs schedules list" in type_("schedules", words[0], "zzz", *words[1:]).err


class TestExplain:
    def test_words_and_times_without_a_store(self, type_, in_india) -> None:
        typed = type_("schedules", "explain", "0 9 * * mon", "--timezone", "Europe/Paris", "-n", "3")
        assert (typed.code, typed.err) == (0, "")
        assert typed.lines[:3] == [
            ["when", "At 09:00 on Monday"],
            ["expression", "0 9 * * MON"],
            ["zone", "Europe/Paris"],
        ]
        assert typed.out.count("Mon 20") == 3
        assert "+05:30" in typed.out

    def test_in_json(self, type_) -> None:
        item = type_("schedules", "explain", "@hourly", "-n", "1", "--json").document["item"]
        assert (item["expression"], item["timezone"], len(item["next"])) == ("0 * * * *", "UTC", 1)

    def test_without_quotes_and_of_intervals(self, type_) -> None:
        assert "At 09:00 on Monday" in type_("schedules", "explain", "0", "9", "*", "*", "mon").out
        assert type_("schedules", "explain", "every", "90s").lines[0] == ["when", "Every 1 min 30 s"]
        assert type_("schedules", "explain", "every 3600").lines[1] == ["expression", "every 3600"]

    def test_the_zone_of_the_settings(self, type_, monkeypatch) -> None:
        monkeypatch.setenv("PROTOJOBS_TIMEZONE", "Europe/Paris")
        assert ["zone", "Europe/Paris"] in type_("schedules", "explain", "@daily").lines

    @pytest.mark.parametrize(
        ("words", "why"),
        [
            (("0 25 * * *",), "the hour '25' does not work"),
            (("0 0 30 2 *",), "never"),
            (("0", "9", "a.py", "b.py", "c.py", "d.py", "mon"), "Put the expression in quotes"),
            (("@sometimes",), "@hourly"),
            (("every", "soon"), "no length of time"),
            (("every", "0"), "At least 1"),
            (("@daily", "--timezone", "Mars/Olympus"), "no time zone"),
        ],
    )
    def test_what_is_wrong_is_pointed_at(self, type_, words, why) -> None:
        typed = type_("schedules", "explain", *words)
        assert (typed.code, typed.out) == (2, "")
        assert why in typed.err
