"""The doctor looks aside: one examination at a time, kept for a minute, whatever becomes of it."""

from __future__ import annotations

import threading

import pytest

from protojobs.errors import StoreUnavailable
from protojobs.inspector import Role
from protojobs.port.diagnosis import Finding, Severity
from protojobs_dashboard import examining
from protojobs_dashboard.examining import Examination, Examined

FOUND = [Finding(code="x", severity=Severity.OK, what="All is well.")]


def ended(examination: Examination) -> Examined:
    for thread in threading.enumerate():
        if thread.name == "protojobs-doctor":
            thread.join(10.0)
    return examination.latest(lambda: pytest.fail("it was examined anew"), is_asked_for=False)


def test_who_looks_does_not_wait_and_is_shown_what_was_found_last() -> None:
    examination, may_end = Examination(), threading.Event()
    begun = [examination.latest(lambda: FOUND if may_end.wait(10.0) else [], is_asked_for=False) for _ in range(3)]
    assert begun == [Examined(is_running=True)] * 3
    may_end.set()
    assert ended(examination) == Examined(findings=FOUND)


def test_there_is_one_at_a_time_and_one_a_minute_and_more_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    examination, made = Examination(), list[int]()

    def examine() -> list[Finding]:
        made.append(1)
        return FOUND

    examination.latest(examine, is_asked_for=False)
    ended(examination)
    examination.latest(examine, is_asked_for=True)  # within five seconds
    assert len(made) == 1
    monkeypatch.setattr(examining, "AGAIN_S", -1.0)
    examination.latest(examine, is_asked_for=True)
    ended(examination)
    assert len(made) == 2


def test_a_store_that_is_away_is_told() -> None:
    examination = Examination()

    def away() -> list[Finding]:
        raise StoreUnavailable("the store does not answer")

    examination.latest(away, is_asked_for=False)
    assert "does not answer" in ended(examination).error


def test_the_page_shows_findings_and_asking_again_leads_back_to_it(client, examined) -> None:
    assert 'data-testid="findings"' in examined(client)
    again = client.get("/doctor?again=yes")
    assert (again.status_code, again.headers["location"]) == (303, "/doctor")


def test_nobody_without_a_role_is_shown_what_others_have_examined(client, with_role, examined) -> None:
    examined(client)
    assert with_role(Role.NONE).get("/doctor").status_code == 403
