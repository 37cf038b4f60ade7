"""The plugin as it is installed: nothing until the environment asks for it; and runs in child processes."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from protojobs import JobQueue, create_driver
from protojobs.errors import ConfigurationError
from protojobs_opentelemetry.asked import plugin

APP = """
import pathlib
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from protojobs import job

class ToFile(SpanExporter):
    def export(self, spans):
        with pathlib.Path("spans").open("a") as file:
            for span in spans:
                links = ",".join(f"{link.context.span_id:x}" for link in span.links)
                file.write(f"{span.kind.name} {span.context.span_id:x} {links or '-'}\\n")

trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(ToFile()))

@job(name="a")
def a(): ...
"""


def test_the_entry_point_names_it() -> None:
    (found,) = entry_points(group="protojobs.plugins", name="opentelemetry")
    assert found.load() is plugin


def test_installed_and_not_asked_for_it_is_not_there(monkeypatch) -> None:
    monkeypatch.delenv("PROTOJOBS_PLUGINS_DISABLED", raising=False)
    hooks = JobQueue(create_driver("memory://")).hooks
    assert "opentelemetry" not in hooks.plugins
    assert hooks.around_job == ()


def test_installed_and_not_asked_for_it_imports_nothing_of_the_library() -> None:
    program = (
        "import sys; from protojobs import JobQueue, create_driver\n"
        "assert JobQueue(create_driver('memory://')).hooks.plugins == []\n"
        "assert 'opentelemetry' not in sys.modules"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PROTOJOBS_")}
    subprocess.run([sys.executable, "-c", program], env=environ, check=True, timeout=60)


def test_asked_for_it_is_one_for_all_queues_of_the_process(monkeypatch) -> None:
    monkeypatch.delenv("PROTOJOBS_PLUGINS_DISABLED", raising=False)
    monkeypatch.setenv("PROTOJOBS_OPENTELEMETRY_TRACE", "parent")
    assert len(JobQueue(create_driver("memory://")).hooks.around_job) == 1
    assert plugin() is plugin()


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("TRACE", "links", "Known: link, parent, none"),
        ("METRICS", "perhaps", "METRICS"),
        ("TRACES", "x", "Did you mean"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch, variable: str, text: str, said: str) -> None:
    monkeypatch.setenv(f"PROTOJOBS_OPENTELEMETRY_{variable}", text)
    with pytest.raises(ConfigurationError, match=said):
        plugin()


def test_a_run_in_a_child_process_is_traced_there(tmp_path: Path) -> None:
    """The around hook runs where the job's code runs, so the child must set up the exporter: importing the app does."""
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    create_driver(url).setup()
    (tmp_path / "shop.py").write_text(APP)
    environ = {**os.environ, "PROTOJOBS_OPENTELEMETRY_TRACE": "link", "PROTOJOBS_URL": url, "PROTOJOBS_APP": "shop"}
    environ.pop("PROTOJOBS_PLUGINS_DISABLED", None)
    for words in (["push", "a"], ["worker", "--stop-when-empty", "--executor", "process"]):
        command = [sys.executable, "-m", "protojobs.cli", *words]
        subprocess.run(command, env=environ, cwd=tmp_path, check=True, timeout=60, capture_output=True)
    produced, consumed = (line.split() for line in (tmp_path / "spans").read_text().splitlines())
    assert produced[0] == "PRODUCER"
    assert consumed[0] == "CONSUMER"
    assert consumed[2] == produced[1]
