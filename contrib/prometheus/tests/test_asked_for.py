"""The plugin as it is installed: nothing until the environment asks for it, then each worker serves its numbers."""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from protojobs import JobQueue, create_driver
from protojobs.errors import ConfigurationError, OptionInvalid
from protojobs_prometheus import Prometheus, PrometheusSettings, exposition
from protojobs_prometheus.asked import plugin
from protojobs_prometheus.text import render

HERE = Path(__file__).parents[1]
WAIT_S = 60.0
APP = """
from protojobs import job

@job(name="fine")
def fine() -> None: ...
"""


def test_the_entry_points_name_it() -> None:
    (found,) = entry_points(group="protojobs.plugins", name="prometheus")
    assert found.load() is plugin
    assert entry_points(group="protojobs.commands", name="metrics")


def test_installed_and_not_asked_for_it_is_not_there(monkeypatch) -> None:
    monkeypatch.delenv("PROTOJOBS_PLUGINS_DISABLED", raising=False)
    queue = JobQueue(create_driver("memory://"))
    assert "prometheus" not in queue.hooks.plugins
    assert not queue.hooks.listens("job.processing")


def test_installed_and_not_asked_for_it_imports_nothing_of_the_library() -> None:
    program = (
        "import sys; from protojobs import JobQueue, create_driver\n"
        "assert JobQueue(create_driver('memory://')).hooks.plugins == []\n"
        "assert 'prometheus_client' not in sys.modules"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PROTOJOBS_")}
    subprocess.run([sys.executable, "-c", program], env=environ, check=True, timeout=60)


def test_asked_for_it_listens_once_for_all_queues_of_the_process(monkeypatch) -> None:
    monkeypatch.delenv("PROTOJOBS_PLUGINS_DISABLED", raising=False)
    monkeypatch.setenv("PROTOJOBS_PROMETHEUS_PORT", "0")
    first, second = (JobQueue(create_driver("memory://")) for _ in range(2))
    assert first.hooks.listens("job.processing")
    assert second.hooks.listens("job.processing")
    assert plugin() is plugin()


@pytest.mark.parametrize("port", ["x", "9464-", "9470-9464", "70000", "0-5", "1-2000", "-1", "9464 9465"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(OptionInvalid, match="metrics' port"):
        PrometheusSettings(port)


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("PORT", "http", "PROTOJOBS_PROMETHEUS|metrics' port"),
        ("PROT", "9464", "Did you mean"),
        ("HOST", "::1", "_PORT"),
    ],
)
def test_a_wrong_setting_is_a_line_in_the_log_and_the_program_goes_on(
    monkeypatch, caplog, variable, text, said
) -> None:
    monkeypatch.delenv("PROTOJOBS_PLUGINS_DISABLED", raising=False)
    monkeypatch.setenv(f"PROTOJOBS_PROMETHEUS_{variable}", text)
    with pytest.raises(ConfigurationError, match=said):
        plugin()
    with caplog.at_level(logging.ERROR):
        assert not JobQueue(create_driver("memory://")).hooks.listens("job.processing")
    (record,) = caplog.records
    assert re.search(said, record.getMessage())


def test_each_of_several_processes_serves_its_own_numbers(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    create_driver(url).setup()
    (tmp_path / "shop.py").write_text(APP)
    environ = {**os.environ, "PROTOJOBS_PROMETHEUS_PORT": "0", "PROTOJOBS_URL": url, "PROTOJOBS_APP": "shop"}
    environ.pop("PROTOJOBS_PLUGINS_DISABLED", None)
    protojobs = [sys.executable, "-m", "protojobs.cli"]
    subprocess.run([*protojobs, "push", "fine"], env=environ, cwd=tmp_path, check=True, timeout=WAIT_S)
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        worker = subprocess.Popen(
            [*protojobs, "worker", "--processes", "2", "-v"], env=environ, cwd=tmp_path, stderr=stderr
        )
    try:
        runs = -1.0
        ends = time.monotonic() + WAIT_S
        while runs != 1:
            assert time.monotonic() < ends, log.read_text()
            time.sleep(0.1)
            ports = [int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)/metrics", log.read_text())]
            runs = sum(succeeded(port) for port in ports) if len(ports) == 2 else -1.0
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(WAIT_S) == 0
    finally:
        worker.kill()
        worker.wait()
    assert len(set(ports)) == 2


def succeeded(port: int) -> float:
    """The runs that the worker behind this port says have succeeded. It serves nothing that others know too."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    connection.request("GET", "/metrics")
    families = {one.name: one for one in text_string_to_metric_families(connection.getresponse().read().decode())}
    assert "protojobs_queue_jobs" not in families
    return sum(one.value for one in families["protojobs_jobs_finished"].samples if one.name.endswith("_total"))


# ------------------------------------------------------------------------------------- what is shipped beside the code


def shipped_expressions() -> list[str]:
    rules = yaml.safe_load((HERE / "alerts.yaml").read_text())
    found = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    panels = json.loads((HERE / "grafana.json").read_text())["panels"]
    return found + [target["expr"] for panel in panels for target in panel["targets"]]


@pytest.fixture(scope="module")
def known(exercise) -> dict[str, set[str]]:
    """Every series that there is, with its labels."""
    registry = CollectorRegistry()
    exercise(Prometheus(registry=registry))
    queue = JobQueue(create_driver("memory://"))
    queue.pause("q")
    text = render(registry).decode() + exposition(queue)
    series: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            series.setdefault(one.name, set()).update(one.labels)
    return series


def test_rules_and_panels_use_metrics_and_labels_that_there_are(known: dict[str, set[str]]) -> None:
    expressions = shipped_expressions()
    assert len(expressions) > 15
    for text in expressions:
        names = set(re.findall(r"\bprotojobs_\w+", text))
        assert names
        assert names <= set(known), text
        labels = {label for name in names for label in known[name]}
        used = set(re.findall(r"(\w+)\s*=~?\s*\"", text))
        for listed in re.findall(r"\b(?:by|on) ?\(([^)]*)\)", text):
            used |= {label.strip() for label in listed.split(",") if label.strip()}
        assert used <= labels, text


def test_the_page_names_every_metric_with_its_labels(known: dict[str, set[str]]) -> None:
    page = (HERE.parents[1] / "docs" / "how-to" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(protojobs_\w+)` \| ([^|]*)\|", page, re.MULTILINE)
    told = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    there: dict[str, set[str]] = {}
    for name, labels in known.items():
        if not name.endswith(("_created", "_bucket", "_count")):
            there[name.removesuffix("_sum")] = labels
    assert told == there


def test_rules_say_how_bad_it_is_and_what_it_means() -> None:
    rules = [rule for group in yaml.safe_load((HERE / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"]["summary"]
        for named in re.findall(r"\$labels\.(\w+)", str(rule["annotations"])):
            assert re.search(rf"\b{named}\b", rule["expr"]) or "protojobs_queue_oldest_ready_seconds" in rule["expr"]


def test_a_rule_about_an_increase_sees_the_very_first_event_too() -> None:
    """Which makes the series, and is no increase of it. Seen to fire with promtool 2.53."""
    rules = [rule for group in yaml.safe_load((HERE / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
    increases = [rule["expr"] for rule in rules if "increase(" in rule["expr"]]
    assert len(increases) == 2
    for expression in increases:
        counted, window = re.findall(r"increase\((.+?)\[(\w+)\]\)", expression)[0]
        begun = f"({counted} unless {counted} offset {window} and on () (protojobs_store_up offset {window}))"
        assert f"( {begun} or increase({counted}[{window}])) > 0" in expression


def test_the_dashboard_has_panels_that_do_not_overlap() -> None:
    panels = json.loads((HERE / "grafana.json").read_text())["panels"]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)
