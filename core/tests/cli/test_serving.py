"""What a worker says of the queues that it serves as it starts, and the stores that it refuses to work on."""

from __future__ import annotations

from pathlib import Path

import pytest

from protojobs.port.records import WorkerInfo

END = ("--app", "shop", "--stop-when-empty")  # its jobs are for the default queue, `math` and `emails`
ALONE = """
import msgspec
from protojobs import *
from protojobs_memory import MemoryDriver

class Embedded(MemoryDriver):
    capabilities = msgspec.structs.replace(MemoryDriver.capabilities, durable={durable})

queue = JobQueue(Embedded("memory://alone"))

@job(name="mail")
def mail(): print("mailed")

queue.push(mail)
"""


class TestQueues:
    def test_queues_with_due_jobs_that_no_worker_serves_are_told_with_the_command(self, type_, push) -> None:
        push("broken", "--queue", "partners")
        err = type_("worker", *END).err
        assert 'no worker serves "partners" (1 due job); start one: protojobs worker partners' in err
        assert 'no worker serves "partners"' in type_("worker", "emails", *END).err

    def test_nothing_is_said_where_all_are_served_here_or_elsewhere(self, type_, push, queue) -> None:
        push("broken", "--queue", "partners")
        other = WorkerInfo(id="w", host="h", pid=1, queues=("part*",), concurrency=1, lease_s=600.0)
        queue.driver.register(other)
        assert "no worker serves" not in type_("worker", *END).err
        queue.driver.leave("w")
        assert "no worker serves" not in type_("worker", "--all-queues", *END).err

    def test_a_worker_whose_lease_is_over_serves_nothing(self, type_, push, queue) -> None:
        push("broken", "--queue", "partners")
        lapsed = WorkerInfo(id="w", host="h", pid=1, queues=("partners",), concurrency=1, lease_s=0.001)
        queue.driver.register(lapsed)
        while queue.driver.workers()[0].lease_ends_at > queue.driver.now():
            pass
        assert 'no worker serves "partners"' in type_("worker", *END).err

    def test_queues_without_due_jobs_are_left_to_others(self, type_, url) -> None:
        assert "no worker serves" not in type_("worker", "emails", *END).err

    @pytest.mark.parametrize("name", ["emials", "mth"])
    def test_a_misspelt_queue_is_told_with_the_one_that_is_meant(self, type_, url, name: str) -> None:
        meant = {"emials": "emails", "mth": "math"}[name]
        err = type_("worker", name, *END).err
        assert f'queue "{name}" has no jobs, and none of yours names it; did you mean "{meant}"?' in err

    def test_a_new_queue_that_is_like_no_other_and_one_that_has_jobs_are_no_mistakes(self, type_, push) -> None:
        push("broken", "--queue", "emial")
        assert "did you mean" not in type_("worker", "partners", "emial", *END).err


class TestStoresOfOneProcess:
    @pytest.fixture
    def app(self, folder: Path):
        def write(durable: bool) -> str:
            (folder / "alone.py").write_text(ALONE.format(durable=durable))
            return "alone:queue"

        return write

    @pytest.mark.parametrize("durable", [True, False])
    @pytest.mark.parametrize("processes", ["1", "2"])
    def test_several_processes_are_refused(self, start, app, durable: bool, processes: str) -> None:
        ended = start("worker", "--processes", processes, "--app", app(durable)).ended()
        assert (ended.code, ended.out) == (7, "")
        assert "is seen by one process only" in ended.err
        assert "without --processes" in ended.err

    def test_a_store_that_begins_empty_with_the_worker_is_refused(self, type_, folder) -> None:
        typed = type_("worker", "--url", "memory://", *END)
        assert (typed.code, typed.out) == (7, "")
        assert "no other process can push to it" in typed.err
        assert "--app shop:queue" in typed.err

    @pytest.mark.parametrize("durable", [True, False])
    def test_the_one_of_the_application_is_worked_alone(self, start, app, durable: bool) -> None:
        ended = start("worker", "--app", app(durable), "--stop-when-empty").ended()
        assert (ended.code, ended.out) == (0, "mailed\n")

    def test_the_doctor_notes_it(self, type_, app) -> None:
        assert "note\town_process\tOnly the process that has" in type_("doctor", "--app", app(True)).out
