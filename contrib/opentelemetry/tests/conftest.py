"""What the tests of the traces share."""

from __future__ import annotations

import pytest

from protojobs import events
from protojobs.jobs.definition import REGISTRY


@pytest.fixture(autouse=True)
def _jobs_and_listeners_of_this_test_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(REGISTRY, "_by_name", {})
    monkeypatch.setattr(events, "LISTENERS", {})
