"""What the tests of the reports share: an SDK that collects what it would send, and sends nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.scope import Scope, ScopeType
from sentry_sdk.transport import Transport

from protojobs import events
from protojobs.jobs.definition import REGISTRY


class Collector(Transport):
    """Keeps each item of each envelope, by its type."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[tuple[str, dict]] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.items += [(item.type, item.payload.json) for item in envelope.items]

    def of(self, kind: str) -> list[dict]:
        return [payload for type_, payload in self.items if type_ == kind]

    @property
    def only(self) -> dict:
        (event,) = self.of("event")
        return event


@pytest.fixture(autouse=True)
def _jobs_and_listeners_of_this_test_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(REGISTRY, "_by_name", {})
    monkeypatch.setattr(events, "LISTENERS", {})


@pytest.fixture
def sentry() -> Iterator[Callable[..., Collector]]:
    """Sets up the SDK with these options; afterwards there is none, and no scope of the test's."""

    def init(**options: object) -> Collector:
        transport = options.pop("transport", None) or Collector()
        sentry_sdk.init(dsn="https://key@sentry.example/1", transport=transport, send_client_reports=False, **options)
        return transport

    yield init
    sentry_sdk.get_global_scope().set_client(None)
    Scope.set_isolation_scope(Scope(ty=ScopeType.ISOLATION))
    Scope.set_current_scope(Scope(ty=ScopeType.CURRENT))


@pytest.fixture
def run_protojobs() -> Callable[..., None]:
    """Runs a command in a folder that holds `shop.py`, with the plugin asked for and jobs in a file beside it."""

    def run(folder: Path, *words: str) -> None:
        asked = {"PROTOJOBS_SENTRY_REPORT": "failed", "PROTOJOBS_APP": "shop"}
        environ = {**os.environ, **asked, "PROTOJOBS_URL": f"sqlite:///{folder / 'jobs.db'}"}
        environ.pop("PROTOJOBS_PLUGINS_DISABLED", None)
        command = [sys.executable, "-m", "protojobs.cli", *words]
        subprocess.run(command, env=environ, cwd=folder, check=True, timeout=120, capture_output=True)

    return run
