"""A killer among neighbours in threads of a supervised worker; core has its own tests of it in child processes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from faults.scenarios import poison
from faults.stage import Report, set_up

pytestmark = pytest.mark.faults  # minutes of real faults: run by `python3 dev.py faults --short`

NEIGHBOURS = 20
WITHIN_S = 120.0


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_it_is_given_up_after_three_deaths_of_its_own_and_its_neighbours_do_not_pay(
    kind: str, make_store_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poison, "LEASE_S", 1.0)
    monkeypatch.setattr(poison, "CONCURRENCY", 2)  # few go down with it twice, and so become suspects too
    report = Report()
    with set_up(kind, url=make_store_url(kind), seed=1, minutes=0, say=print) as stage:
        poison.poison(stage, report, "threads", NEIGHBOURS, within_s=WITHIN_S)
    assert report.complaints == [], report
    assert report.figures["in threads: deaths"] == poison.SUSPECT_AFTER + poison.DEATHS
