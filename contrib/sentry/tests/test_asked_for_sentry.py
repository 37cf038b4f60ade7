"""The plugin as it is installed: nothing until the environment asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from protojobs import JobQueue, create_driver
from protojobs.errors import ConfigurationError
from protojobs_sentry.asked import plugin


def test_the_entry_point_names_it() -> None:
    (found,) = entry_points(group="protojobs.plugins", name="sentry")
    assert found.load() is plugin


def test_installed_and_not_asked_for_it_imports_nothing_of_the_library() -> None:
    program = (
        "import sys; from protojobs import JobQueue, create_driver\n"
        "hooks = JobQueue(create_driver('memory://')).hooks\n"
        "assert hooks.plugins == [] and not hooks.has_before_push\n"
        "assert 'sentry_sdk' not in sys.modules"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PROTOJOBS_")}
    subprocess.run([sys.executable, "-c", program], env=environ, check=True, timeout=60)


def test_asked_for_it_is_one_for_all_queues_of_the_process(monkeypatch) -> None:
    monkeypatch.delenv("PROTOJOBS_PLUGINS_DISABLED", raising=False)
    monkeypatch.setenv("PROTOJOBS_SENTRY_REPORT", "attempts")
    assert len(JobQueue(create_driver("memory://")).hooks.around_job) == 1
    assert plugin() is plugin()


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("REPORT", "all", "Known: failed, attempts, none"),
        ("CHECK_INS", "perhaps", "CHECK_INS"),
        ("REPORTS", "failed", "Did you mean"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch, variable: str, text: str, said: str) -> None:
    monkeypatch.setenv(f"PROTOJOBS_SENTRY_{variable}", text)
    with pytest.raises(ConfigurationError, match=said):
        plugin()
