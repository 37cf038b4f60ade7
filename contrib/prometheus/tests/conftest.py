"""What the tests of the metrics share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from protojobs import events
from protojobs.jobs.definition import REGISTRY
from protojobs_prometheus import Prometheus


@pytest.fixture(autouse=True)
def _jobs_and_listeners_of_this_test_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(REGISTRY, "_by_name", {})
    monkeypatch.setattr(events, "LISTENERS", {})


@pytest.fixture(scope="session")
def exercise() -> Callable[[Prometheus], None]:
    """`exercise(plugin)` tells it every event that makes a series: then every metric there is has a sample."""
    return tell_everything


def tell_everything(plugin: Prometheus) -> None:
    for kind in events.EVENTS.values():
        hook = getattr(plugin, f"protojobs_{kind.event_name.replace('.', '_')}", None)
        if hook is None:
            continue
        given: dict[str, object] = {"job_id": "1", "job_name": "a", "queue": "q", "schedule_id": "s", "worker": "w"}
        given |= {"queues": ("q",), "concurrency": 1, "due_at": None, "first_due_at": None, "done": 0, "failed": 0}
        given |= {"reason": "late", "job_class": "shop.Send"}
        event = kind(**{name: value for name, value in given.items() if name in kind.__struct_fields__})
        hook(event) if hook.__code__.co_argcount > 1 else hook()
