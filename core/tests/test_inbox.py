"""What wakes the claim loop, and that nothing which has happened is lost or waits longer than it may."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from protojobs.worker.inbox import Ended, Inbox, Message

LONG_S = 5.0
Eventually = Callable[[Callable[[], object]], None]


class Loop:
    """A claim loop that waits once, on a thread of its own."""

    def __init__(self, inbox: Inbox, *, wait_s: float = LONG_S, gather: int) -> None:
        self.messages: list[Message] = []
        self._inbox, self._wait_s, self._gather = inbox, wait_s, gather
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        self.messages.extend(self._inbox.messages(self._wait_s, self._gather))

    @property
    def is_waiting(self) -> bool:
        self._thread.join(0.1)
        return self._thread.is_alive()

    def has_woken(self) -> bool:
        return not self._thread.is_alive()


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


def end(inbox: Inbox, *numbers: int) -> list[Ended]:
    ended: list[Ended] = [((str(number), 1), None) for number in numbers]
    for key, outcome in ended:
        inbox.put_ended(key, outcome)
    return ended


def test_messages_arrive_in_order_and_all_at_once(inbox: Inbox) -> None:
    for message in (1, None, 2):
        inbox.put(message)
    assert list(inbox.messages(LONG_S, 1)) == [1, None, 2]
    assert list(inbox.messages(0.0, 1)) == []


def test_a_message_wakes_the_loop_whatever_number_of_ends_it_waits_for(inbox: Inbox, eventually: Eventually) -> None:
    loop = Loop(inbox, gather=100)
    inbox.put(2)
    eventually(loop.has_woken)
    assert loop.messages == [2]


def test_the_end_of_a_run_wakes_a_loop_that_waits_for_one(inbox: Inbox, eventually: Eventually) -> None:
    loop = Loop(inbox, gather=1)
    ended = end(inbox, 1)
    eventually(loop.has_woken)
    assert (loop.messages, list(inbox.ended())) == ([], ended)


def test_one_that_waits_for_three_sleeps_until_the_third(inbox: Inbox, eventually: Eventually) -> None:
    loop = Loop(inbox, gather=3)
    ended = end(inbox, 1, 2)
    assert loop.is_waiting
    ended += end(inbox, 3)
    eventually(loop.has_woken)
    assert list(inbox.ended()) == ended


def test_its_wait_is_over_in_time_though_too_few_have_ended(inbox: Inbox, eventually: Eventually) -> None:
    ended = end(inbox, 1)
    loop = Loop(inbox, wait_s=0.02, gather=3)
    eventually(loop.has_woken)
    assert list(inbox.ended()) == ended


def test_what_had_ended_before_it_began_to_wait_counts(inbox: Inbox) -> None:
    list(inbox.messages(0.0, 100))
    ended = end(inbox, 1, 2, 3)  # without a wake-up: 100 were waited for
    began = time.monotonic()
    list(inbox.messages(LONG_S, 3))
    assert time.monotonic() - began < LONG_S / 2
    assert list(inbox.ended()) == ended


def test_wake_ups_are_no_messages(inbox: Inbox) -> None:
    end(inbox, 1)
    inbox.put(None)
    end(inbox, 2)
    assert list(inbox.messages(LONG_S, 1)) == [None]


def test_no_end_falls_between_two_waits(inbox: Inbox) -> None:
    """A loop that changes what it waits for, and threads that end runs meanwhile: whoever is missed is waited for in
    vain, so each wait is long.
    """
    count, seen, turn = 4_000, list[Ended](), 0

    def work(first: int) -> None:
        for number in range(first, count, 4):
            end(inbox, number)

    threads = [threading.Thread(target=work, args=(first,), daemon=True) for first in range(4)]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    while len(seen) < count:
        turn += 1
        list(inbox.messages(LONG_S, min(1 + turn % 7, count - len(seen))))
        seen.extend(inbox.ended())
        assert time.monotonic() - began < LONG_S
    assert len({key for key, _ in seen}) == count
