"""One NOTIFY for many jobs, none too late and none forgotten."""

from __future__ import annotations

import threading
from queue import SimpleQueue

import pytest

from protojobs_sqlalchemy.postgresql import notifier as notifying
from protojobs_sqlalchemy.postgresql.notifier import Notifier

Sent = SimpleQueue[list[str]]


@pytest.fixture
def sent() -> Sent:
    return SimpleQueue()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue counts as quiet only after a tenth of a second."""
    monkeypatch.setattr(notifying, "_QUIET_S", 0.1)


@pytest.mark.usefixtures("slow")
def test_a_quiet_queue_is_told_at_once_and_a_loud_one_once_a_moment_later(sent: Sent) -> None:
    notifier = Notifier(sent.put)
    notifier.notify(["a"])
    assert sent.get_nowait() == ["a"]
    for _ in range(50):
        notifier.notify(["a"])
    assert sent.empty()
    assert sent.get(timeout=5) == ["a"]
    notifier.notify(["b"])
    assert sent.get(timeout=5) == ["b"]


def test_where_the_caller_must_not_wait_all_is_sent_in_the_other_thread() -> None:
    sent: SimpleQueue[tuple[str, list[str]]] = SimpleQueue()
    notifier = Notifier(lambda queues: sent.put((threading.current_thread().name, queues)))
    for _ in range(2):
        notifier.notify(["a"], is_here=False)
        assert sent.get(timeout=5) == ("protojobs-notify", ["a"])


def test_whatever_is_told_of_last_is_sent_after_it(sent: Sent) -> None:
    """From several threads at once: the last word of each queue is followed by a notification."""
    notifier, told = Notifier(sent.put), 4 * 200

    def tell(queue: str) -> None:
        for _ in range(200):
            notifier.notify([queue])

    threads = [threading.Thread(target=tell, args=(f"queue-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    notifier.notify(["end"])
    seen: list[str] = []
    while set(notifier._later) or "end" not in seen:
        seen += sent.get(timeout=5)
    assert {f"queue-{number}" for number in range(4)} <= set(seen)
    assert len(seen) < told / 4


def test_its_thread_ends_when_nothing_comes_and_another_begins_when_something_does(
    sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifying, "_KEPT_S", 0.05)
    notifier = Notifier(sent.put)
    for _ in range(3):
        notifier.notify(["a"])
        notifier.notify(["a"])
        while sent.get(timeout=5) and notifier._later:
            pass
        if (thread := notifier._thread) is not None:
            thread.join(5)
        assert notifier._thread is None
    notifier.notify(["a"])
    assert sent.get(timeout=5) == ["a"]
