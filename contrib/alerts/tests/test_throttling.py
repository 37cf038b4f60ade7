"""When an alert is told: at its beginning, once in each interval, and when it is over; what is held back is counted."""

from __future__ import annotations

from protojobs_alerts.findings import Finding
from protojobs_alerts.throttling import ALERTS_MAX, Throttle

EVERY_S = 900.0


def wrong(name: str = "mail", new: int = 0) -> Finding:
    return Finding(kind="oldest", queue=name, text=f"{name} is behind.", new=new)


def told(throttle: Throttle, now_s: float, *found: Finding, is_complete: bool = True) -> list[tuple[str, str, int]]:
    notices = throttle.turn(now_s, found, is_complete=is_complete)
    return [(notice.status, notice.finding.queue, notice.held_back) for notice in notices]


def test_an_alert_is_told_once_while_the_interval_lasts_then_again_with_what_was_held_back() -> None:
    throttle = Throttle(EVERY_S)
    assert told(throttle, 0, wrong(new=1)) == [("firing", "mail", 0)]
    for second in range(15, 900, 15):
        assert told(throttle, second, wrong(new=2)) == []
    assert told(throttle, 900, wrong(new=2)) == [("firing", "mail", 120)]
    assert told(throttle, 915, wrong(new=1)) == []
    assert told(throttle, 1800, wrong()) == [("firing", "mail", 1)]


def test_its_end_is_told_at_once_and_once() -> None:
    throttle = Throttle(EVERY_S)
    told(throttle, 0, wrong())
    told(throttle, 15, wrong(new=3))
    assert told(throttle, 30) == [("resolved", "mail", 3)]
    assert told(throttle, 45) == []
    assert told(throttle, 5000) == []


def test_one_that_comes_and_goes_is_told_no_more_than_twice_in_an_interval() -> None:
    throttle = Throttle(EVERY_S)
    messages = [told(throttle, second, *([wrong(new=1)] if second % 30 == 0 else [])) for second in range(0, 900, 15)]
    assert [one for message in messages for one in message] == [("firing", "mail", 0), ("resolved", "mail", 0)]
    assert told(throttle, 900, wrong(new=1)) == [("firing", "mail", 30 - 1 + 1)]


def test_one_that_came_and_went_unseen_is_told_when_the_interval_is_over() -> None:
    throttle = Throttle(EVERY_S)
    told(throttle, 0, wrong(new=1))
    told(throttle, 15)
    assert told(throttle, 300, wrong(new=4)) == []
    assert told(throttle, 315) == []
    assert told(throttle, 899) == []
    assert told(throttle, 900) == [("resolved", "mail", 4)]
    assert told(throttle, 2000) == []
    assert told(throttle, 2015, wrong()) == [("firing", "mail", 0)]


def test_alerts_do_not_hold_each_other_back() -> None:
    throttle = Throttle(EVERY_S)
    assert told(throttle, 0, wrong("a")) == [("firing", "a", 0)]
    assert told(throttle, 15, wrong("a"), wrong("b")) == [("firing", "b", 0)]
    assert told(throttle, 30, wrong("b")) == [("resolved", "a", 0)]


def test_what_could_not_be_looked_at_is_not_over() -> None:
    throttle = Throttle(EVERY_S)
    told(throttle, 0, wrong("a"))
    assert told(throttle, 15, wrong("store"), is_complete=False) == [("firing", "store", 0)]
    assert told(throttle, 30, wrong("a")) == [("resolved", "store", 0)]


def test_how_long_it_lasts_is_told() -> None:
    throttle = Throttle(EVERY_S)
    assert throttle.turn(0, [wrong()])[0].text == "mail is behind."
    assert throttle.turn(900, [wrong()])[0].text == "mail is behind. It has lasted 15 min."
    assert throttle.turn(915, [])[0].text == "Over: mail is behind."


def test_memory_is_bounded() -> None:
    throttle = Throttle(EVERY_S)
    for second in range(10):
        found = [wrong(f"q{second}-{number}") for number in range(ALERTS_MAX // 5)]
        assert len([one for one in told(throttle, second, *found) if one[0] == "firing"]) == len(found)
        assert len(throttle._alerts) <= ALERTS_MAX
    assert len(throttle._alerts) == ALERTS_MAX


def test_one_of_too_many_to_be_told_goes_on_in_silence() -> None:
    throttle = Throttle(EVERY_S)
    assert told(throttle, 0, wrong("a"), wrong("b")) == [("firing", "a", 0), ("firing", "b", 0)]
    assert throttle.turn(15, [wrong("a")], unlisted=[wrong("b", new=2), wrong("c")]) == []
    assert throttle.turn(900, [], unlisted=[wrong("a"), wrong("b", new=1)]) == []
    assert told(throttle, 1000, wrong("a"), wrong("b", new=1)) == [("firing", "a", 0), ("firing", "b", 4)]
    assert told(throttle, 1015) == [("resolved", "a", 0), ("resolved", "b", 0)]
    assert throttle.turn(1030, [], unlisted=[wrong("a", new=1)]) == []
    assert told(throttle, 1900) == [], "nobody was told that it had begun again"
    assert told(throttle, 1915) == [("resolved", "a", 1)]
