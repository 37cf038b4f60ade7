"""The files for Docker, Compose, Kubernetes and KEDA: not run here, but read, and held against the code."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from files import DEPLOY, SUPERVISING_S, parsed, stop_s

from protojobs.cli.option_types import duration
from protojobs.config import Settings

STOP_S = stop_s() + SUPERVISING_S
DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
FILES = [*sorted((DEPLOY / "kubernetes").glob("*.yaml")), DEPLOY / "docker" / "compose.yaml"]


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def kubernetes(kind: str) -> dict[str, Any]:
    (found,) = [one for one in documents("kubernetes/worker.yaml") if one["kind"] == kind]
    return found


def pod() -> dict[str, Any]:
    return kubernetes("Deployment")["spec"]["template"]["spec"]


def worker() -> dict[str, Any]:
    (found,) = pod()["containers"]
    return found


def services() -> dict[str, dict[str, Any]]:
    (found,) = documents("docker/compose.yaml")
    return found["services"]


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions in order."""
    text = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines]


def instruction(name: str) -> str:
    (found,) = [rest for word, rest in instructions() if word == name]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_is_yaml_without_a_key_that_stands_twice(path) -> None:
    class Strict(yaml.SafeLoader):
        pass

    def mapping(loader: Strict, node: yaml.MappingNode) -> dict[object, object]:
        keys = [loader.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"{path.name}, line {node.start_mark.line + 1}: {keys}"
        return loader.construct_mapping(node, deep=True)

    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    assert list(yaml.load_all(path.read_text(), Loader=Strict))


class TestDockerfile:
    def test_it_does_not_run_as_root(self) -> None:
        user = instruction("USER")
        assert user.isdecimal() and int(user) > 0
        words = [word for word, _ in instructions()]
        assert words.index("USER") < words.index("ENTRYPOINT")

    def test_signals_reach_the_worker_since_no_shell_stands_between(self) -> None:
        assert instruction("STOPSIGNAL") == "SIGTERM"
        assert json.loads(instruction("ENTRYPOINT")) == ["protojobs"]
        assert isinstance(json.loads(instruction("CMD")), list)

    def test_it_starts_a_worker_whose_probe_the_health_check_asks(self) -> None:
        started = parsed(json.loads(instruction("CMD")))
        options, _, command = instruction("HEALTHCHECK").partition(" CMD ")
        program, *words = json.loads(command)
        asked = parsed(words)
        assert program == "protojobs" and asked["live"]
        assert asked["port"] == started["probe_port"]
        timeout = re.search(r"--timeout=(\S+)", options)
        assert timeout and duration(timeout[1]) > asked["timeout"]

    def test_what_changes_often_is_copied_last(self) -> None:
        copied = [rest for word, rest in instructions() if word == "COPY"]
        assert copied == ["requirements.txt ./", ". ."]


class TestCompose:
    def test_every_command_exists_with_these_options(self) -> None:
        commands = {name: service["command"] for name, service in services().items() if "command" in service}
        assert commands.keys() == {"migrate", "worker", "dashboard"}
        assert {name: bool(parsed(command)) for name, command in commands.items()} == {
            "migrate": True, "worker": True, "dashboard": True,
        }  # fmt: skip

    def test_a_worker_has_the_time_to_stop_that_it_needs(self) -> None:
        assert duration(services()["worker"]["stop_grace_period"]) >= STOP_S

    def test_the_probe_has_the_port_that_the_image_asks(self) -> None:
        asked = parsed(json.loads(instruction("HEALTHCHECK").partition(" CMD ")[2])[1:])
        assert parsed(services()["worker"]["command"])["probe_port"] == asked["port"]

    def test_off_loopback_the_dashboard_has_a_user(self) -> None:
        dashboard = services()["dashboard"]
        assert parsed(dashboard["command"])["host"] == "0.0.0.0"
        assert "PROTOJOBS_DASHBOARD_AUTH" in dashboard["environment"]
        assert all(port.startswith("127.0.0.1:") for port in dashboard["ports"])


class TestKubernetes:
    def test_a_worker_has_the_time_to_stop_that_it_needs(self) -> None:
        assert pod()["terminationGracePeriodSeconds"] >= STOP_S
        assert pod()["terminationGracePeriodSeconds"] >= Settings().shutdown_grace + 10

    def test_the_probes_ask_where_the_worker_answers(self) -> None:
        options = parsed(worker()["args"])
        (port,) = worker()["ports"]
        assert (options["probe_host"], options["probe_port"]) == ("0.0.0.0", port["containerPort"])
        paths = {
            name: worker()[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")
        }
        assert paths == {"startupProbe": "/readyz", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
        assert {worker()[name]["httpGet"]["port"] for name in paths} == {port["name"]}

    def test_it_is_migrated_before_it_starts(self) -> None:
        (migrate,) = pod()["initContainers"]
        assert migrate["image"] == worker()["image"]
        assert parsed(migrate["args"])["down"] is False

    def test_it_is_confined(self) -> None:
        assert pod()["securityContext"]["runAsNonRoot"] is True
        assert str(pod()["securityContext"]["runAsUser"]) == instruction("USER")
        for container in (*pod()["initContainers"], worker()):
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
            assert context["capabilities"]["drop"] == ["ALL"]

    def test_selectors_find_the_pods(self) -> None:
        labels = kubernetes("Deployment")["spec"]["template"]["metadata"]["labels"]
        assert kubernetes("Deployment")["spec"]["selector"]["matchLabels"] == labels
        assert kubernetes("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels

    def test_keda_scales_this_deployment_by_metrics_that_exist(self) -> None:
        (scaled,) = documents("kubernetes/keda.yaml")
        assert scaled["spec"]["scaleTargetRef"]["name"] == kubernetes("Deployment")["metadata"]["name"]
        sources = "".join(path.read_text() for path in (DEPLOY.parent / "prometheus" / "src").rglob("*.py"))
        names = {
            name
            for trigger in scaled["spec"]["triggers"]
            for name in re.findall(r"protojobs_\w+", trigger["metadata"]["query"])
        }
        assert names == {"protojobs_queue_jobs", "protojobs_queue_oldest_ready_seconds"}
        assert [name for name in names if f'"{name}"' not in sources] == []
