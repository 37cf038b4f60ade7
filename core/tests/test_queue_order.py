"""In which order claims ask their queues: strict, by weight, in fair turn; wildcards; and workers that do so."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence

import pytest

from protojobs import JobQueue, StopToken, job
from protojobs.config import Settings
from protojobs.errors import OptionInvalid
from protojobs.jobs.definition import Registry
from protojobs.names import QUEUES_MAX, served_queue
from protojobs.port.records import QueueInfo, Stats, WorkerInfo
from protojobs.worker.queue_order import QueueOrder, queue_order
from protojobs.worker.reports.unserved import AGAIN_S, Unserved, every_queue
from protojobs_memory import MemoryDriver

RAN: list[str] = []


@pytest.fixture
def note():
    """A job whose queue only it names."""
    RAN.clear()

    @job(name="order.note", queue="order.own")
    def note(queue: str) -> None:
        RAN.append(queue)

    return note


class Lent:
    """What an order looks at of a job."""

    def __init__(self, queue: str) -> None:
        self.queue = queue


def info(name: str, waited_s: float | None = None) -> QueueInfo:
    return QueueInfo(name=name, is_paused=False, stats=Stats(), oldest_ready_s=waited_s)


def lent(order: QueueOrder, waiting: dict[str, int], limit: int) -> list[str]:
    """One claim: what a store would lend, which is taken from `waiting`."""
    jobs: list[str] = []
    for name in order.next():
        number = min(waiting.get(name, 0), limit - len(jobs))
        waiting[name] = waiting.get(name, 0) - number
        jobs += [name] * number
    order.lent([Lent(name) for name in jobs])  # pyright: ignore[reportArgumentType]  (all that it looks at)
    return jobs


def claims(order: QueueOrder, waiting: dict[str, int], number: int, *, limit: int = 1) -> list[str]:
    return [name for _ in range(number) for name in lent(order, waiting, limit)]


class TestStrictOrder:
    def test_the_first_is_asked_first_always(self) -> None:
        order = QueueOrder(["urgent", "bulk"])
        assert not order.takes_turns
        assert claims(order, {"urgent": 3, "bulk": 3}, 5) == ["urgent"] * 3 + ["bulk"] * 2
        assert order.words == "urgent, bulk, in this order"

    def test_those_that_one_wildcard_stands_for_take_turns_behind_what_is_named_before(self) -> None:
        order = QueueOrder(["urgent", "mail.*"])
        order.found([info("mail.a"), info("mail.b"), info("post")])
        ran = claims(order, {"urgent": 2, "mail.a": 9, "mail.b": 9}, 8)
        assert ran[:2] == ["urgent"] * 2
        assert Counter(ran[2:]) == {"mail.a": 3, "mail.b": 3}


class TestWeights:
    @pytest.mark.parametrize("limit", [1, 7, 100])
    def test_jobs_are_lent_by_weight_whatever_a_claim_takes(self, limit: int) -> None:
        order = QueueOrder(["urgent=5", "bulk=1"])
        ran = Counter(claims(order, {"urgent": 10**6, "bulk": 10**6}, 600, limit=limit))
        assert ran["urgent"] / ran["bulk"] == pytest.approx(5, rel=0.05)

    def test_the_light_one_waits_for_no_more_than_the_weight_of_the_others(self) -> None:
        order = QueueOrder(["a=1000", "b=1000", "light=1"])
        ran = claims(order, dict.fromkeys(["a", "b", "light"], 10**6), 4_010)
        places = [place for place, name in enumerate(ran) if name == "light"]
        assert len(places) >= 2
        assert (
            max(b - a for a, b in zip(places, places[1:], strict=False)) <= 2_003
        )  # 2,000 of the others, and one turn of each

    def test_what_was_empty_has_no_right_to_what_it_did_not_need(self) -> None:
        order = QueueOrder(["a=1", "b=1"])
        claims(order, {"a": 1_000}, 1_000)
        assert Counter(claims(order, {"a": 100, "b": 100}, 20)) == {"a": 10, "b": 10}

    def test_an_empty_queue_costs_the_others_no_turn(self) -> None:
        assert len(claims(QueueOrder(["a=9", "b=1"]), {"b": 50}, 50)) == 50

    def test_a_queue_that_comes_keeps_the_places_of_the_others(self) -> None:
        order = QueueOrder(["*"])
        order.found([info("a"), info("b")])
        claims(order, {"a": 1}, 1)
        order.found([info("a"), info("b"), info("c")])
        assert order.next()[0] != "a"


class TestWildcards:
    @pytest.mark.parametrize(
        ("text", "queue", "is_so"),
        [
            ("mail.*", "mail.a", True),
            ("mail.*", "mail.", True),
            ("mail.*", "mail", False),
            ("*", "anything", True),
            ("*.low", "mail.low", True),
            ("a*b*c", "a-b-b-c", True),
            ("a*b*c", "abc", True),
            ("a*a", "a", False),
            ("a*bb*b", "abb", False),
            ("mail", "mail", True),
            ("mail=5", "mail", True),
            ("a=5=1", "a=5", True),
            ("a*b", "a*b", True),
        ],
    )
    def test_what_it_stands_for(self, text: str, queue: str, is_so: bool) -> None:
        assert served_queue(text).matches(queue) is is_so

    def test_of_more_than_a_claim_can_ask_those_that_have_waited_longest_are_taken(self) -> None:
        order = QueueOrder(["*"], ["own"])
        names = [f"q{number:03}" for number in range(3 * QUEUES_MAX)]
        order.found([info(name, float(number) if number % 2 else None) for number, name in enumerate(names)])
        assert len(order.next()) == QUEUES_MAX
        assert set(order.next()) == {name for number, name in enumerate(names) if number % 2 and number > QUEUES_MAX}

    def test_queues_of_its_own_jobs_are_asked_before_the_store_has_them(self) -> None:
        assert list(QueueOrder(["mail.*"], ["mail.own", "other"]).next()) == ["mail.own"]


class TestWhatIsTold:
    @pytest.mark.parametrize(
        "told",
        [
            [],
            [f"q{n}" for n in range(QUEUES_MAX + 1)],
            ["a", "a"],
            ["a=2", "a=3"],
            ["a=2", "b"],
            ["a=x"],
            ["a=0"],
            ["a=1001"],
            [""],
            "",
            5,
            {"a": 0},
            {"a": True},
            ["=5"],
        ],
    )
    def test_what_cannot_be_served_is_refused(self, told: Sequence[str]) -> None:
        with pytest.raises(OptionInvalid):
            queue_order(told, Settings(), Registry())

    def test_a_setting_that_cannot_be_served_is_refused_when_it_is_read(self) -> None:
        with pytest.raises(OptionInvalid, match="has none"):
            Settings(queues=("a=5", "b"))

    def test_a_dict_is_names_and_weights(self) -> None:
        assert queue_order({"a": 5, "b": 1}, Settings(), Registry()).told == ("a=5", "b=1")

    def test_without_names_the_setting_and_without_that_the_default_queue(self) -> None:
        assert queue_order(None, Settings(queues=("b", "a")), Registry()).told == ("b", "a")
        assert queue_order(None, Settings(default_queue="main"), Registry()).told == ("main",)


class TestWorkers:
    def test_without_names_a_worker_serves_what_its_jobs_name(self, note) -> None:
        queue = JobQueue(MemoryDriver("memory://own"))
        queue.push(note.bind("own"))
        queue.push(note.on_queue("order.elsewhere").bind("elsewhere"))
        assert queue.work(max_jobs=10).done == 1
        assert RAN == ["own"]

    def test_bulk_does_not_hold_up_what_is_urgent_nor_the_other_way_round(self, note) -> None:
        queue = JobQueue(MemoryDriver("memory://weights"), {"concurrency": 1, "settle": "sync"})
        for name in ("bulk", "urgent"):
            queue.push_many([note.on_queue(name).bind(name) for _ in range(60)])
        queue.work({"urgent": 5, "bulk": 1}, 60)
        assert Counter(RAN) == {"urgent": 50, "bulk": 10}

    def test_all_queues_are_served_in_fair_turn(self, note) -> None:
        queue = JobQueue(MemoryDriver("memory://all"), {"concurrency": 1, "settle": "sync"})
        for name in ("a", "z"):
            queue.push_many([note.on_queue(name).bind(name) for _ in range(20)])
        queue.work("*", 20)
        assert Counter(RAN) == {"a": 10, "z": 10}

    def test_a_queue_that_is_new_is_found(self, note, monkeypatch) -> None:
        monkeypatch.setattr("protojobs.worker.lease.maintenance.QUEUES_EVERY_S", 0.01)
        queue, token = JobQueue(MemoryDriver("memory://new"), {"poll_interval": 0.05}), StopToken()

        @job(name="order.end", queue="order.own")
        def end() -> None:
            RAN.append("end")
            token.stop()

        @job(name="order.spread", queue="mail.first")
        def spread() -> None:
            queue.push(end.on_queue("mail.second"))

        queue.push(spread)
        bound = threading.Timer(30, token.stop)
        bound.start()
        queue.work("mail.*", stop=token)
        bound.cancel()
        assert RAN == ["end"]


class TestUnserved:
    def test_it_is_told_once_then_when_others_are_left_then_again_after_a_while(self, note, caplog) -> None:
        driver = MemoryDriver("memory://unserved")
        queue, watch = JobQueue(driver), Unserved(driver)
        served = WorkerInfo(id="w", host="h", pid=1, queues=("mail.*=2",), concurrency=1, lease_s=600.0)
        driver.register(served)
        queue.push(note.on_queue("mail.a").bind("a"))

        def lines(now: float) -> int:
            caplog.clear()
            watch.look(now, every_queue(driver))
            return len(caplog.records)

        assert lines(0.0) == 0
        queue.push(note.on_queue("partners").bind("p"))
        assert [lines(1.0), lines(2.0)] == [1, 0]
        queue.push(note.on_queue("others").bind("o"))
        assert [lines(3.0), lines(4.0), lines(3.0 + AGAIN_S)] == [1, 0, 1]
        queue.pause("partners")
        queue.pause("others")
        assert lines(5_000.0) == 0
