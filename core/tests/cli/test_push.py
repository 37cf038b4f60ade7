"""`protojobs push`: an id on stdout, or nothing stored and the reason on stderr."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from protojobs.port.lifecycle import JobState


def test_it_prints_the_id_and_nothing_else(push, queue) -> None:
    job_id = push("mail.welcome", '{"email": "jo@example.com"}')
    job = queue.get(job_id)
    assert (job.queue, job.job_name, job.data) == ("emails", "mail.welcome", '{"email":"jo@example.com"}')


def test_the_data_may_come_from_stdin(type_, queue) -> None:
    typed = type_("push", "add", "-", "--app", "shop", stdin='{"a": 1, "b": 2}')
    assert queue.get(typed.out.strip()).data == '{"a":1,"b":2}'


def test_options_change_this_one_push(push, queue) -> None:
    job = queue.get(push("add", '{"a": 1, "b": 2}', "--queue", "other", "--priority", "-7", "--delay", "1h30m"))
    assert (job.queue, job.priority) == ("other", -7)
    assert timedelta(minutes=89) < job.available_at - job.created_at < timedelta(minutes=91)


def test_a_time_without_an_offset_is_one_in_the_configured_zone(push, queue, monkeypatch) -> None:
    monkeypatch.setenv("PROTOJOBS_TIMEZONE", "Europe/Paris")
    noon = datetime(2030, 7, 1, 12, tzinfo=UTC)
    assert queue.get(push("chatty", "--at", "2030-07-01 14:00")).available_at == noon
    assert queue.get(push("chatty", "--at", "2030-07-01T12:00Z")).available_at == noon


def test_the_same_id_is_stored_once(push, queue) -> None:
    first = push("mail.welcome", '{"email": "a"}', "--id", "01890000-0000-7000-8000-000000000000")
    assert push("mail.welcome", '{"email": "a"}', "--id", first) == first
    assert queue.stats().total == 1


def test_in_json(type_, url) -> None:
    document = type_("push", "broken", "--app", "shop", "--json").document
    assert document["schema"] == "protojobs/push@1"
    assert len(document["item"]["id"]) == 36


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("ad", "{}"), 3, 'Did you mean "add"?'),
        (("add", '{"a": 1}'), 2, "required field `b`"),
        (("add", '{"a": 1, "b": "x"}'), 2, "$.b"),
        (("add", "{a: 1}"), 2, "This is not JSON"),
        (("add", '{"a": 1, "b": 2}', "--priority", "101"), 2, "-100<=x<=100"),
        (("add", '{"a": 1, "b": 2}', "--queue", ""), 2, "queue is empty"),
        (("add", '{"a": 1, "b": 2}', "--delay", "soon"), 2, "'soon' is no length of time"),
        (("chatty", "--at", "noon"), 2, "'noon' is not a date"),
        (("chatty", "--at", ""), 2, "'' is not a date"),
        (("chatty", "--at", "2030-07-01", "--delay", "1"), 2, "not both"),
        (("add", '{"a": 1, "b": 2}', "--delay", "1", "--id", "x"), 2, "not one that push made"),
        ((), 2, "Missing argument 'NAME'"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_stored(type_, queue, words, code, said) -> None:
    typed = type_("push", *words, "--app", "shop")
    assert (typed.code, typed.out) == (code, "")
    assert said in typed.err
    assert queue.stats().total == 0


def test_without_its_module_a_job_is_unknown(type_, url) -> None:
    typed = type_("push", "nobody.knows")
    assert typed.code == 3
    assert "--app" in typed.err


def test_it_waits_for_a_worker(push, queue) -> None:
    assert queue.get(push("broken")).status is JobState.PENDING
