"""The store's numbers: what one scrape says of queues and workers, by function, command and page."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from protojobs import JobQueue, create_driver, job
from protojobs.errors import SchemaOutdated, StoreUnavailable
from protojobs.port.records import QueueInfo, Stats, WorkerInfo
from protojobs_memory import MemoryDriver
from protojobs_prometheus import exposition
from protojobs_prometheus.command import command
from protojobs_prometheus.labels import NAMES_MAX

Values = dict[tuple[str, tuple[str, ...]], float]


def values_of(text: str) -> Values:
    return {
        (one.name.removeprefix("protojobs_"), tuple(one.labels.values())): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


@pytest.fixture
def driver() -> Iterator[MemoryDriver]:
    driver = MemoryDriver()
    driver.setup()
    yield driver
    driver.close()


@pytest.fixture
def queue(driver: MemoryDriver) -> JobQueue:
    queue = JobQueue(driver)

    @job(name="send", queue="mail")
    def send() -> None: ...

    return queue


def test_queues_and_workers_of_the_whole_fleet(queue: JobQueue, driver: MemoryDriver) -> None:
    queue.push_many([("send", None)] * 3)
    queue.later(3600, "send")
    queue.pause("mail")
    info = {"host": "h", "pid": 1, "queues": ("mail",), "lease_s": 60.0}
    driver.register(WorkerInfo(id="alive", concurrency=8, **info))
    driver.time_offset -= 7200
    driver.register(WorkerInfo(id="gone", concurrency=4, **info))
    driver.time_offset += 7200 + 90
    driver.heartbeat("alive", {})
    values = values_of(exposition(queue))
    assert values["store_up", ()] == 1
    assert values["queue_jobs", ("mail", "ready")] == 3
    assert values["queue_jobs", ("mail", "scheduled")] == 1
    assert values["queue_jobs", ("mail", "running")] == 0
    assert values["queue_jobs", ("mail", "failed")] == 0
    assert 90 <= values["queue_oldest_ready_seconds", ("mail",)] < 150
    assert values["queue_paused", ("mail",)] == 1
    assert values["workers", ("alive",)] == 1
    assert values["workers", ("lapsed",)] == 1
    assert values["fleet_slots", ()] == 8
    assert values["fleet_slots_busy", ()] == 0


def test_an_empty_store_says_so_with_numbers(queue: JobQueue) -> None:
    values = values_of(exposition(queue))
    assert values["store_up", ()] == 1
    assert values["workers", ("alive",)] == 0


def test_queues_beyond_the_bound_are_summed_up(queue: JobQueue, driver, monkeypatch) -> None:
    many = [
        QueueInfo(name=f"q{n:03}", is_paused=n >= 250, stats=Stats(pending=2, scheduled=1), oldest_ready_s=float(n))
        for n in range(NAMES_MAX + 100)
    ]
    monkeypatch.setattr(driver, "queues", lambda **_: many)
    values = values_of(exposition(queue))
    assert values["queue_jobs", ("q199", "ready")] == 1
    assert values["queue_jobs", ("other", "ready")] == 100
    assert values["queue_oldest_ready_seconds", ("other",)] == 249, "those that are paused may be as old as they like"
    assert values["queue_paused", ("other",)] == 0, "or the alert on all of them would be muted"
    assert len({labels[0] for name, labels in values if name == "queue_jobs"}) == NAMES_MAX + 1
    many[NAMES_MAX:250] = []
    values = values_of(exposition(queue))
    assert values["queue_oldest_ready_seconds", ("other",)] == 0
    assert values["queue_paused", ("other",)] == 1


def test_a_store_that_is_away_is_a_number_and_one_line_in_the_log(queue, driver, monkeypatch, caplog) -> None:
    def away(**_: object) -> list[QueueInfo]:
        raise StoreUnavailable("no route")

    monkeypatch.setattr(driver, "queues", away)
    assert values_of(exposition(queue)) == {("store_up", ()): 0.0}
    assert [record.levelname for record in caplog.records] == ["ERROR"]


class TestCommand:
    def test_prints_one_scrape(self, sqlite_url: str, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.chdir(tmp_path)
        create_driver(sqlite_url).setup()
        ran = CliRunner().invoke(command, ["--url", sqlite_url], catch_exceptions=False)
        assert ran.exit_code == 0
        assert values_of(ran.stdout)["store_up", ()] == 1

    def test_without_a_store_it_says_what_to_set(self, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("PROTOJOBS_URL", raising=False)
        ran = CliRunner().invoke(command, [])
        assert "PROTOJOBS_URL" in str(ran.exception)

    @pytest.mark.parametrize("words", [[], ["--serve", "0"]])
    def test_a_store_that_is_not_migrated_is_an_error(self, sqlite_url: str, words: list[str]) -> None:
        ran = CliRunner().invoke(command, ["--url", sqlite_url, *words])
        assert isinstance(ran.exception, SchemaOutdated)
        assert ran.stdout == ""

    @pytest.mark.parametrize("address", ["nowhere", "host:", "1-2", "99999", "0.0.0.0:http"])
    def test_an_address_that_is_none_is_refused(self, sqlite_url: str, address: str) -> None:
        create_driver(sqlite_url).setup()
        ran = CliRunner().invoke(command, ["--url", sqlite_url, "--serve", address])
        assert ran.exit_code != 0
        assert "port" in str(ran.exception)

    def test_serves_until_it_is_told_to_stop(self, sqlite_url: str, tmp_path: Path) -> None:
        create_driver(sqlite_url).setup()
        line = [sys.executable, "-m", "protojobs", "metrics", "--url", sqlite_url, "--serve", "0"]
        with subprocess.Popen(line, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env={**os.environ}) as process:
            try:
                assert process.stderr is not None
                said = process.stderr.readline()
                port = int(said.partition("127.0.0.1:")[2].partition("/")[0])
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
                connection.request("GET", "/metrics")
                answer = connection.getresponse()
                assert answer.status == 200
                assert values_of(answer.read().decode())["store_up", ()] == 1
                process.send_signal(signal.SIGTERM)
                assert process.wait(20) == 0
            finally:
                process.kill()
