"""Tables on a terminal, tabs in a pipe, JSON on request; and nothing from a store reaches the terminal's controls."""

from __future__ import annotations

import json
import re

import pytest

from protojobs.cli.showing.text import age, counted, escaped, escaped_lines, length
from protojobs.clock import SYSTEM_CLOCK
from protojobs.entropy import fresh_id
from protojobs.port.records import NewJob

HOSTILE = "red\x1b[31m\x07\tbell\nline\u202edne \x9b[2J [bold]markup[/bold]"
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def hostile(queue) -> str:
    """A job whose every text tries to reach the terminal; as somebody else might write it into the store."""
    job = NewJob(id=fresh_id(), queue=HOSTILE[:9], job_name=HOSTILE, job_class=HOSTILE, data=json.dumps({"x": HOSTILE}))
    queue.driver.enqueue([job])
    return job.id


@pytest.mark.parametrize("words", [("jobs", "list"), ("jobs", "show", "ID"), ("stats",), ("queues", "list")])
@pytest.mark.parametrize("json_", [(), ("--json",)], ids=["plain", "json"])
def test_hostile_text_is_escaped_in_a_pipe(type_, hostile, words, json_) -> None:
    typed = type_(*(hostile if word == "ID" else word for word in words), *json_)
    assert typed.code == 0
    assert not CONTROLS.search(typed.out), repr(typed.out)
    if json_:
        assert "\x1b[31m" in json.dumps(typed.document, ensure_ascii=False) or "\\u001b[31m" in typed.out
    else:
        assert r"\x1b[31m" in typed.out


@pytest.mark.parametrize("words", [("jobs", "list"), ("jobs", "show", "ID"), ("queues", "list")])
def test_hostile_text_is_escaped_on_a_terminal(on_terminal, hostile, words) -> None:
    typed = on_terminal(*(hostile if word == "ID" else word for word in words), columns=250)
    shown = re.sub("\x1b\\[[0-9;]*m", "", typed.out)  # the colours that we chose
    assert not CONTROLS.search(shown), repr(shown)
    assert "\x1b[31m" not in typed.out.replace("\x1b[31mfailed", "")
    assert r"\x1b[31m" in shown


def test_hostile_text_in_an_error_is_escaped(type_, url) -> None:
    typed = type_("jobs", "show", "x\x1b[31m")
    assert r"x\x1b[31m" in typed.err
    assert "\x1b" not in typed.err


def test_a_hostile_data_document_is_the_same_after_reading(type_, hostile) -> None:
    assert type_("jobs", "show", hostile, "--json").document["item"]["data"] == {"x": HOSTILE}


class TestOnATerminal:
    def test_a_table_with_titles_and_ages(self, on_terminal, push) -> None:
        job_id = push("mail.welcome", '{"email": "a"}', "--delay", "1h")
        typed = on_terminal("jobs", "list")
        titles, row = (re.sub("\x1b\\[[0-9;]*m", "", line).split() for line in typed.out.splitlines())
        assert titles == ["id", "queue", "name", "state", "attempts", "when"]
        assert row[:5] == [job_id, "emails", "mail.welcome", "pending", "0"]
        assert " ".join(row[5:]) in ("in 60m", "in 59m")

    @pytest.mark.parametrize("columns", [40, 80, 200])
    def test_ids_numbers_and_ages_are_never_cut(self, on_terminal, push, columns) -> None:
        job_id = push("mail.welcome", '{"email": "a"}', "--delay", "5d", "--queue", "a-queue-with-quite-a-long-name")
        shown = on_terminal("jobs", "list", columns=columns).out
        assert job_id in shown
        assert "in 5d" in shown

    def test_colours_unless_they_are_not_wanted(self, on_terminal, push, type_, monkeypatch) -> None:
        push("broken")
        type_("worker", "--app", "shop", "--stop-when-empty")
        assert "\x1b[31mfailed" in on_terminal("jobs", "list").out
        monkeypatch.setenv("NO_COLOR", "1")
        assert "\x1b[31m" not in on_terminal("jobs", "list").out

    def test_json_is_json_there_too(self, on_terminal, push) -> None:
        push("broken")
        assert json.loads(on_terminal("stats", "--json").out)["total"]["pending"] == 1

    @pytest.mark.parametrize(("keys", "code", "left"), [("n\n", 2, 1), ("\n", 2, 1), ("y\n", 0, 0)])
    def test_a_bulk_command_asks(self, on_terminal, push, queue, keys, code, left) -> None:
        push("broken")
        typed = on_terminal("queues", "clear", "default", keys=keys)
        assert "Go on? [y/N]" in typed.out
        assert typed.code == code
        assert queue.stats().total == left

    def test_an_error_is_in_colour(self, on_terminal) -> None:
        assert "\x1b[31m\x1b[1merror:" in on_terminal("stats").out

    def test_ctrl_c_at_the_question_is_an_interruption(self, on_terminal, push, queue) -> None:
        push("broken")
        typed = on_terminal("queues", "clear", "default", keys="\x03")
        assert (typed.code, queue.stats().total) == (130, 1)


def test_forced_colour_in_a_pipe_changes_nothing(type_, push, monkeypatch) -> None:
    push("broken")
    plain = type_("jobs", "list").out
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert type_("jobs", "list").out == plain


class TestText:
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("plain, gr\u00fc\u00df \u65e5\u672c", "plain, gr\u00fc\u00df \u65e5\u672c"),
            ("\x1b[0m", r"\x1b[0m"),
            ("a\nb\tc\rd\x00\x7f\x9b", r"a\nb\tc\rd\x00\x7f\x9b"),
            ("\u202e\u2066\ud800\u2028", r"\u202e\u2066\ud800\u2028"),
        ],
    )
    def test_escaped(self, text, shown) -> None:
        assert escaped(text) == shown

    def test_lines_stay_lines(self) -> None:
        assert escaped_lines("a\r\n\tb\x1b") == ["a", "    b\\x1b"]

    @pytest.mark.parametrize(
        ("seconds", "shown"),
        [(0.2, "0s"), (41, "41s"), (119, "119s"), (120, "2m"), (7199, "120m"), (7200, "2h"), (2 * 86400, "2d")],
    )
    def test_length(self, seconds, shown) -> None:
        assert length(seconds) == shown

    def test_ages(self) -> None:
        now = SYSTEM_CLOCK.now()
        assert age(now, now) == "now"

    def test_counted(self) -> None:
        assert [counted(n, "job") for n in (0, 1, 2000)] == ["0 jobs", "1 job", "2,000 jobs"]
