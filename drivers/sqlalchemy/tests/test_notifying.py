"""One NOTIFY for many jobs, none too late and none forgotten."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import SimpleNamespace

import psycopg
import pytest

from protojobs.clock import SYSTEM_CLOCK
from protojobs.entropy import fresh_id
from protojobs.port.records import NewJob
from protojobs_sqlalchemy import SQLAlchemyDriver
from protojobs_sqlalchemy.postgresql import notifier as notifying
from protojobs_sqlalchemy.postgresql.listener import CHANNEL
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
def test_a_quiet_queue_goes_along_with_its_push_and_a_loud_one_is_told_once_a_moment_later(sent: Sent) -> None:
    notifier = Notifier(sent.put)
    with notifier.along("a") as goes_along:
        assert goes_along
    for _ in range(50):
        with notifier.along("a") as goes_along:
            assert not goes_along
        notifier.notify(["a"])
    assert sent.empty()
    assert sent.get(timeout=5) == ["a"]


def test_one_push_after_another_takes_no_lock_along_whatever_its_queue(
    sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For twenty times as long as the last one took: the whole cluster's notifications wait meanwhile."""
    now = SYSTEM_CLOCK.monotonic()
    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr(notifying, "SYSTEM_CLOCK", clock)
    notifier = Notifier(sent.put)
    with notifier.along("a") as goes_along:
        assert goes_along
        with notifier.along("b") as goes_along:
            assert not goes_along
        now += 0.002
    now += 0.039
    with notifier.along("b") as goes_along:
        assert not goes_along
    now += 0.002
    with pytest.raises(LookupError), notifier.along("b") as goes_along:
        assert goes_along
        raise LookupError
    now += 0.011
    with notifier.along("c") as goes_along:
        assert goes_along


def test_all_else_is_sent_in_another_thread() -> None:
    sent: SimpleQueue[tuple[str, list[str]]] = SimpleQueue()
    notifier = Notifier(lambda queues: sent.put((threading.current_thread().name, queues)))
    for _ in range(2):
        notifier.notify(["a"])
        assert sent.get(timeout=5) == ("protojobs-notify", ["a"])


def test_what_is_still_to_be_sent_is_sent_at_the_end(sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifying, "_QUIET_S", 600.0)
    notifier = Notifier(sent.put)
    for _ in range(2):
        notifier.notify(["a"])
        notifier.notify(["a", "b"])
        notifier.finish()
        seen: list[str] = []
        while not sent.empty():
            seen += sent.get_nowait()
        assert set(seen) == {"a", "b"}
        assert notifier._thread is None
    notifier.finish()


PUSH_AND_END = """
import sys
from protojobs.entropy import fresh_id
from protojobs.port.records import NewJob
from protojobs_sqlalchemy import SQLAlchemyDriver
driver = SQLAlchemyDriver(sys.argv[1])
for queue in sys.argv[2:]:
    driver.enqueue([NewJob(id=fresh_id(), queue=queue, job_name="n", job_class="c", data="{}")])
"""


@pytest.mark.parametrize("queues", [["a"], ["a", "b", "c", "a"]])
def test_a_script_that_ends_after_its_pushes_has_told_of_them(
    make_store_url: Callable[[str], str], queues: list[str]
) -> None:
    url = make_store_url("postgresql")
    driver = SQLAlchemyDriver(url)
    driver.setup()
    driver.close()
    with psycopg.connect(
        driver.engine.url.set(drivername="postgresql").render_as_string(False), autocommit=True
    ) as raw:
        raw.execute(f"LISTEN {CHANNEL}")
        subprocess.run([sys.executable, "-c", PUSH_AND_END, url, *queues], check=True, timeout=30)
        told = {notification.payload for notification in raw.notifies(timeout=0.5)}
    assert told == set(queues)


def test_a_push_to_a_quiet_queue_is_one_statement_notification_included(
    make_store_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = SQLAlchemyDriver(make_store_url("postgresql"))
    driver.setup()
    driver.enqueue([job_for("other")])
    driver._dialect._notifier.start_afresh()  # type: ignore[attr-defined]
    asked: list[str] = []
    execute = psycopg.Cursor.execute

    def noted(self: psycopg.Cursor, query: str, *arguments: object, **options: object) -> object:
        asked.append(query)
        return execute(self, query, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(psycopg.Cursor, "execute", noted)
    assert driver.enqueue([job_for("quiet")])[0].duplicate_of is None
    monkeypatch.undo()
    driver.close()
    assert len(asked) == 1
    assert "pg_notify" in asked[0]
    assert "ON CONFLICT" not in asked[0]


def job_for(queue: str) -> NewJob:
    return NewJob(id=fresh_id(), queue=queue, job_name="n", job_class="c", data="{}")


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
