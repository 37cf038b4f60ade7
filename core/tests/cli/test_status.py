"""`protojobs status`, `top` and `--watch`: is all well, for people and for machines that look."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time

import click
import pytest

from protojobs.cli.showing.snapshot import COUNTED, look
from protojobs.cli.showing.thresholds import WORDS, counted_for, threshold
from protojobs.errors import StoreUnavailable
from protojobs.port.records import WorkerInfo

LONG_S = 30.0

# Takes its stdin for its controlling terminal, so that Ctrl-C is a signal there, and becomes the command.
OWN_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


class TestStatus:
    def test_an_empty_store(self, type_, url) -> None:
        typed = type_("status")
        assert (typed.code, typed.out) == (0, "")
        assert typed.err == f"{url}: 0 workers, 0 of 0 slots busy\nThere are no jobs.\n"

    def test_a_line_for_each_queue_and_one_for_all(self, type_, push, queue) -> None:
        push("broken")
        push("mail.welcome", '{"email": "jo@example.com"}', "--delay", "1h")
        push("mail.welcome", '{"email": "jo@example.com"}')
        queue.pause("default")
        typed = type_("status")
        (default, emails, total), oldest = typed.lines, [line.pop(6) for line in typed.lines]
        assert [line[:6] for line in (default, emails, total)] == [
            ["default", "paused", "1", "0", "0", "0"],
            ["emails", "active", "1", "0", "1", "0"],
            ["TOTAL", "", "2", "0", "1", "0"],
        ]
        assert 0 <= float(oldest[1]) <= float(oldest[0]) < LONG_S
        assert oldest[2] == oldest[1]  # a paused queue waits because somebody wants it to

    def test_workers_and_slots(self, type_, url, push, start) -> None:
        push("slow", '{"seconds": 60}')
        start("worker", "default", "--app", "shop", "--concurrency", "3").says("slow began")
        typed = type_("status")
        assert typed.err == f"{url}: 1 worker, 1 of 3 slots busy\n"
        assert typed.lines[0][:4] == ["default", "active", "0", "1"]
        assert typed.lines[0][-2:] == ["1", "3"]

    def test_as_json(self, type_, push, url) -> None:
        push("broken")
        document = type_("status", "--json").document
        assert document["schema"] == "protojobs/status@1"
        assert document["store"] == url
        assert document["workers"] == {"alive": 0, "lapsed": 0, "slots": 0, "busy": 0}
        (item,) = document["items"]
        assert (item["queue"], item["ready"], item["is_estimate"]) == ("default", 1, False)
        assert (document["total"]["queue"], document["total"]["ready"]) == (None, 1)

    def test_on_a_terminal(self, on_terminal, push) -> None:
        push("broken")
        screen = on_terminal("status")
        assert re.search(r"queue +state +ready +running +scheduled +failed +oldest +workers +slots", _plain(screen.out))
        assert re.search(r"default +active +1 +0 +0 +0 +\d+s +0 +0", _plain(screen.out))

    def test_more_than_are_counted_is_told(self, queue, push) -> None:
        for _ in range(3):
            push("broken")
        seen = look(queue.driver, counted_max=2)
        assert seen.total.is_estimate
        assert seen.total.ready >= 2


class TestFailIf:
    def test_nothing_is_crossed(self, type_, push) -> None:
        push("broken")
        typed = type_("status", "--fail-if", "oldest>5m", "--fail-if", "ready > 1")
        assert typed.code == 0
        assert "failed" not in typed.err

    def test_each_that_is_crossed_is_told(self, type_, push, url) -> None:
        push("broken")
        typed = type_("status", "--fail-if", "workers<1", "--fail-if", "ready>=1", "--fail-if", "failed>0")
        assert typed.code == 1
        assert typed.err.splitlines()[1:3] == ["failed: workers<1: 0 alive", "failed: ready>=1: 1 ready"]

    def test_a_queue_with_due_jobs_that_nobody_serves_is_told_with_the_command(self, type_, push, queue) -> None:
        push("broken", "--queue", "partners")
        push("broken", "--queue", "mail.acme")
        assert "No worker serves" in type_("status").err
        told = WorkerInfo(id="w", host="h", pid=1, queues=("mail.*=2",), concurrency=1, lease_s=600.0)
        queue.driver.register(told)
        err = type_("status").err
        assert 'No worker serves "partners", where jobs are due. Start one: protojobs worker partners --app' in err
        queue.pause("partners")
        assert "No worker serves" not in type_("status").err

    def test_how_long_the_oldest_has_waited(self, type_, push) -> None:
        push("broken")
        typed = type_("status", "--fail-if", "oldest>0s")
        assert typed.code == 1
        assert re.search(r"failed: oldest>0s: the oldest ready job has waited for \d+s", typed.err)

    def test_of_one_queue(self, type_, push) -> None:
        push("broken")
        push("broken", "--queue", "my queue")
        assert type_("status", "--fail-if", "queue:default ready>1").code == 0
        typed = type_("status", "--fail-if", 'queue:"my queue" ready=1')
        assert typed.code == 1

    def test_a_queue_that_is_not_there_has_nothing_and_is_told(self, type_, push) -> None:
        push("mail.welcome", '{"email": "jo@example.com"}')
        typed = type_("status", "--fail-if", "queue:email ready>0")
        assert typed.code == 0
        assert 'Note that there is no queue "email". Did you mean "emails"?' in typed.err

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("oldst>5m", 'there is no "oldst". Did you mean "oldest"?'),
            ("speed>5", "There are: ready, running"),
            ("oldest", "is no threshold"),
            ("oldest>5 minutes", "is no threshold"),
            ("oldest>soon", "is no length of time"),
            ("ready>5m", '"5m" is no number of ready'),
            ("ready>-1", "is no number of ready"),
            ("ready>nan", "is no number of ready"),
            ("queue:a queue:b ready>1", "is no threshold"),
            ("queue: ready>1", "is no threshold"),
            ('queue:"a ready>1', "cannot be read"),
            ("", "is no threshold"),
        ],
    )
    def test_what_cannot_be_read_is_said_with_an_example(self, text: str, said: str) -> None:
        with pytest.raises(click.BadParameter) as raised:
            threshold(text)
        assert said in raised.value.message

    def test_the_command_says_it_too(self, type_, url) -> None:
        typed = type_("status", "--fail-if", "oldst>5m")
        assert (typed.code, typed.out) == (2, "")
        assert 'Did you mean "oldest"?' in typed.err

    @pytest.mark.parametrize("word", WORDS)
    def test_every_word_can_be_asked(self, type_, url, word: str) -> None:
        assert type_("status", "--fail-if", f"{word}=0").code == 1
        assert type_("status", "--fail-if", f"{word}>0").code == 0

    def test_as_many_are_counted_as_it_takes(self) -> None:
        assert counted_for((threshold("oldest>5m"), threshold("ready>5"))) == COUNTED
        assert counted_for((threshold("ready>50_000"),)) == 50_001


class Screen:
    """A command on a terminal, until it shows something; then Ctrl-C."""

    def __init__(self, *words: str) -> None:
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "110", "LINES": "30"}
        command = [sys.executable, "-m", "protojobs.cli", *words]
        self._ours, theirs = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-c", OWN_TERMINAL, *command],
            stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self.seen = ""

    def shows(self, pattern: str, times: int = 1) -> None:
        ends = time.monotonic() + LONG_S
        while len(re.findall(pattern, _plain(self.seen))) < times:
            assert time.monotonic() < ends, f"in vain waited for {pattern!r} in {self.seen[-3000:]!r}"
            if select.select([self._ours], [], [], 0.1)[0]:
                self.seen += os.read(self._ours, 65536).decode()

    def leave(self) -> int:
        os.write(self._ours, b"\x03")
        ends = time.monotonic() + LONG_S
        while self._process.poll() is None and time.monotonic() < ends:
            if select.select([self._ours], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self._ours, 65536).decode()
                except OSError:  # the terminal is closed
                    break
        return self._process.wait(LONG_S)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._ours)


@pytest.fixture
def screen():
    made: list[Screen] = []

    def run(*words: str) -> Screen:
        made.append(Screen(*words))
        return made[-1]

    yield run
    for one in made:
        one.close()


class TestWatching:
    def test_it_looks_again_until_ctrl_c(self, screen, push) -> None:
        push("broken")
        shown = screen("status", "--watch=200ms")
        shown.shows(r"default +active +1 ", times=2)
        push("broken")
        shown.shows(r"default +active +2 ")
        assert shown.leave() == 0

    def test_stats_too(self, screen, push) -> None:
        push("broken")
        shown = screen("stats", "--watch=200ms")
        shown.shows(r"default +1 +0 +0", times=2)
        assert shown.leave() == 0

    def test_it_ends_with_1_when_a_threshold_is_crossed(self, start, push) -> None:
        push("broken")
        typed = start("status", "--watch=200ms", "--fail-if", "ready>1")
        typed.says("TOTAL")
        push("broken")
        ended = typed.ended()
        assert ended.code == 1
        assert "failed: ready>1: 2 ready" in ended.err

    def test_an_outage_ends_a_first_look_and_no_later_one(self, type_, url, monkeypatch) -> None:
        looks = iter([None, StoreUnavailable("The store is away."), KeyboardInterrupt()])

        def looking(*_: object, **__: object) -> object:
            if (raised := next(looks)) is not None:
                raise raised
            return look(*_, **__)

        monkeypatch.setattr("protojobs.cli.commands.status.look", looking)
        typed = type_("status", "--watch=200ms")
        assert typed.code == 0
        assert "The store is away. Still looking." in typed.err
        looks = iter([StoreUnavailable("The store is away.")])
        assert type_("status", "--watch=200ms").code == 5

    def test_too_often_is_refused(self, type_, url) -> None:
        typed = type_("status", "--watch=1ms")
        assert typed.code == 2
        assert "at least 0.2s" in typed.err


class TestTop:
    def test_queues_workers_and_running_jobs(self, screen, push, start) -> None:
        running = push("slow", '{"seconds": 60}')
        push("mail.welcome", '{"email": "jo@example.com"}')
        start("worker", "default", "--app", "shop", "--concurrency", "3").says("slow began")
        shown = screen("top", "--every", "200ms")
        shown.shows(r"1 worker, 1 of 3 slots busy, 0 completed, 0\.0 a second")
        shown.shows(r"emails +active +1 +0")
        shown.shows(r"TOTAL +- +1 +1")
        shown.shows(rf"{running} +slow +default +1 +\d+s +-")
        assert shown.leave() == 0
        assert shown.seen.endswith("\x1b[?1049l")  # what was on the terminal is there again

    def test_in_a_pipe_it_says_what_to_do(self, type_, url) -> None:
        typed = type_("top")
        assert typed.code == 2
        assert "protojobs status --watch" in typed.err


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
