"""The probe of a worker, `protojobs health`, and what systemd is told: with real workers where that is quick."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from protojobs import StopToken
from protojobs.cli.health_probe.health import Health, supervisor_health, worker_health
from protojobs.cli.health_probe.probe import CLIENTS_MAX, REQUEST_BYTES_MAX, Probe
from protojobs.cli.health_probe.systemd import Systemd
from protojobs.errors import StoreUnavailable
from protojobs.port.records import WorkerInfo
from protojobs.testing import ManualClock
from protojobs.worker.reports.health import STILL_MIN_S, WorkerHealth

LONG_S = 30.0
WELL = Health(state="working", is_live=True, is_ready=True)
DEAF = Health(state="working", is_live=False, is_ready=False, reasons=("the claim loop has stood still for 2m",))
CUT_OFF = Health(state="working", is_live=True, is_ready=False, reasons=("the store has not answered for 41s",))
INFO = WorkerInfo(id="w1", host="h", pid=1, queues=("default",), concurrency=8, lease_s=60.0)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def until(said: str, is_so: Callable[[], bool]) -> None:
    ends = time.monotonic() + LONG_S
    while not is_so():
        assert time.monotonic() < ends, f"in vain waited until {said}"
        time.sleep(0.05)


def asked(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 5) as line:
        line.sendall(request)
        answer = b""
        while piece := line.recv(65536):
            answer += piece
        return answer


def status_of(port: int, page: str) -> int:
    return int(asked(port, f"GET {page} HTTP/1.1\r\nHost: x\r\n\r\n".encode()).split(b" ")[1])


class TestVitals:
    """When a worker is live, and when it is ready."""

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def vitals(self, clock: ManualClock) -> WorkerHealth:
        vitals = WorkerHealth()
        vitals.begins(INFO, clock.monotonic())
        return vitals

    def test_before_it_is_registered_it_is_live_and_not_ready(self, clock) -> None:
        health = worker_health(WorkerHealth(), StopToken(), clock)
        assert (health.state, health.is_live, health.is_ready) == ("starting", True, False)

    def test_once_registered_it_is_both(self, vitals, clock) -> None:
        health = worker_health(vitals, StopToken(), clock)
        assert (health.state, health.is_live, health.is_ready, health.reasons) == ("working", True, True, ())

    def test_an_outage_makes_it_unready_and_leaves_it_live(self, vitals, clock) -> None:
        for _ in range(6):  # both threads turn, and the store is silent
            clock.advance(10)
            vitals.turns(clock.monotonic(), 3, float("-inf"))
            vitals.beats(clock.monotonic(), INFO, is_good=False)
        health = worker_health(vitals, StopToken(), clock)
        assert (health.is_live, health.is_ready) == (True, False)
        assert health.reasons == ("the store has not answered for 60s",)
        assert (health.workers[0].running, health.workers[0].slots) == (3, 8)

    def test_an_answer_to_either_thread_makes_it_ready_again(self, vitals, clock) -> None:
        clock.advance(40)
        now = clock.monotonic()
        vitals.turns(now, 0, now)
        assert worker_health(vitals, StopToken(), clock).is_ready
        clock.advance(40)
        vitals.beats(clock.monotonic(), INFO, is_good=True)
        assert worker_health(vitals, StopToken(), clock).is_ready

    def test_a_claim_loop_that_stands_still_is_not_live_though_heartbeats_go_on(self, vitals, clock) -> None:
        clock.advance(INFO.lease_s + 1)
        vitals.beats(clock.monotonic(), INFO, is_good=True)
        health = worker_health(vitals, StopToken(), clock)
        assert (health.is_live, health.reasons) == (False, ("the claim loop has stood still for 61s",))

    def test_nor_is_one_without_heartbeats(self, vitals, clock) -> None:
        clock.advance(INFO.lease_s + 1)
        vitals.turns(clock.monotonic(), 0, clock.monotonic())
        health = worker_health(vitals, StopToken(), clock)
        assert (health.is_live, health.reasons) == (False, ("the heartbeat thread has stood still for 61s",))

    def test_one_that_was_told_to_stop_is_live_and_not_ready(self, vitals, clock) -> None:
        stop = StopToken()
        stop.stop()
        health = worker_health(vitals, stop, clock)
        assert (health.state, health.is_live, health.is_ready) == ("stopping", True, False)


class FakeSupervisor:
    def __init__(self, *processes: object, looked_at: float = 0.0) -> None:
        self.processes, self.looked_at = list(processes), looked_at


class FakeProcess:
    def __init__(self, vitals: WorkerHealth | None, now: float = 0.0, *, is_lease_renewed: bool = False) -> None:
        self.pid, self.is_lease_renewed = 4711, is_lease_renewed
        self.last_sign = None if vitals is None else self
        self.condition = None if vitals is None else vitals.condition(now)


class TestSupervisor:
    """A supervisor answers for its workers."""

    def health(self, *processes: object, now: float = 0.0, looked_at: float = 0.0) -> Health:
        clock = ManualClock()
        offset = clock.monotonic()
        clock.advance(now)
        return supervisor_health(FakeSupervisor(*processes, looked_at=offset + looked_at), StopToken(), clock)  # type: ignore[arg-type]

    def process(self, *, still_s: float = 0.0, is_lease_renewed: bool = False) -> FakeProcess:
        vitals = WorkerHealth()
        vitals.begins(INFO, 0.0)
        vitals.beats(still_s, INFO, is_good=True)
        return FakeProcess(vitals, still_s, is_lease_renewed=is_lease_renewed)

    def test_it_is_ready_when_all_are(self) -> None:
        health = self.health(self.process(), self.process())
        assert (health.is_live, health.is_ready, len(health.workers)) == (True, True, 2)

    def test_one_that_is_being_started_makes_it_unready(self) -> None:
        for missing in (None, FakeProcess(None)):
            health = self.health(self.process(), missing)
            assert (health.is_live, health.is_ready, health.reasons) == (True, False, ("a worker is being started",))

    def test_one_that_has_fallen_silent_is_the_supervisors_to_restart(self) -> None:
        health = self.health(self.process(is_lease_renewed=True))
        assert (health.is_live, health.is_ready) == (True, False)
        assert health.reasons == ("worker 4711: it gives no sign of life",)

    def test_one_that_beats_and_claims_nothing_makes_it_not_live(self) -> None:
        health = self.health(self.process(still_s=61), self.process())
        assert not health.is_live
        assert health.reasons == ("worker 4711: the claim loop has stood still for 61s",)

    def test_nor_is_it_live_when_it_does_not_look_after_them(self) -> None:
        health = self.health(self.process(), now=STILL_MIN_S + 1)
        assert (health.is_live, health.is_ready) == (False, False)
        assert health.reasons == ("the supervisor has not looked after its workers for 31s",)


@pytest.fixture
def probe() -> Iterator[Callable[[Health], int]]:
    """`probe(health)` -> the port on which that is answered."""
    made: list[Probe] = []

    def listen(health: Health) -> int:
        made.append(Probe("127.0.0.1", 0, lambda: health))
        return made[-1].port

    yield listen
    for one in made:
        one.close()


class TestProbe:
    @pytest.mark.parametrize(
        ("health", "live", "ready"), [(WELL, 200, 200), (CUT_OFF, 200, 503), (DEAF, 503, 503)], ids=str
    )
    def test_the_status_says_it(self, probe, health: Health, live: int, ready: int) -> None:
        port = probe(health)
        assert (status_of(port, "/livez"), status_of(port, "/readyz")) == (live, ready)

    def test_the_body_says_why(self, probe) -> None:
        body = asked(probe(CUT_OFF), b"GET /readyz HTTP/1.1\r\n\r\n").partition(b"\r\n\r\n")[2]
        assert json.loads(body)["reasons"] == ["the store has not answered for 41s"]

    @pytest.mark.parametrize(
        ("request_", "status"),
        [
            (b"GET / HTTP/1.1\r\n\r\n", 404),
            (b"POST /livez HTTP/1.1\r\n\r\n", 405),
            (b"HEAD /livez?x=1 HTTP/1.1\r\n\r\n", 200),
            (b"\x00\xff\r\n\r\n", 400),
            (b"x" * (REQUEST_BYTES_MAX + 1), 400),
        ],
    )
    def test_strange_requests_get_an_answer(self, probe, request_: bytes, status: int) -> None:
        assert asked(probe(WELL), request_).startswith(f"HTTP/1.1 {status} ".encode())

    def test_who_says_nothing_holds_up_nobody_and_is_hung_up_on(self, probe) -> None:
        port = probe(WELL)
        silent = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(CLIENTS_MAX - 1)]
        assert status_of(port, "/livez") == 200
        for line in silent:
            line.settimeout(10)
            assert line.recv(1) == b""
            line.close()
        assert status_of(port, "/livez") == 200

    def test_without_a_file_descriptor_for_who_asks_it_rests_and_answers_then(self, probe, monkeypatch) -> None:
        rests: list[float] = []
        accept, clock = socket.socket.accept, ManualClock()

        def refused(listener: socket.socket) -> object:
            if len(rests) < 3:
                raise OSError(errno.EMFILE, "Too many open files")
            return accept(listener)

        monkeypatch.setattr(clock, "sleep", rests.append)
        monkeypatch.setattr("protojobs.cli.health_probe.probe.SYSTEM_CLOCK", clock)
        monkeypatch.setattr(socket.socket, "accept", refused)
        assert status_of(probe(WELL), "/livez") == 200
        assert len(rests) == 3

    def test_a_port_that_is_taken_is_said(self, type_, url) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            typed = type_("worker", "--stop-when-empty", "--probe-port", str(port))
        assert typed.code == 2
        assert f"The probe cannot listen on 127.0.0.1, port {port}." in typed.err


class TestAskingAProbe:
    @pytest.mark.parametrize(("health", "live", "ready"), [(WELL, 0, 0), (CUT_OFF, 0, 1), (DEAF, 1, 1)], ids=str)
    def test_the_exit_code_says_it(self, type_, probe, health: Health, live: int, ready: int) -> None:
        port = str(probe(health))
        codes = [type_("health", flag, "--port", port).code for flag in ("--live", "--ready")]
        assert codes == [live, ready]
        assert type_("health", "--port", port).code == ready

    def test_why_is_on_stderr(self, type_, probe) -> None:
        typed = type_("health", "--port", str(probe(CUT_OFF)))
        assert typed.err == "the store has not answered for 41s.\n"
        assert ["ready", "no"] in typed.lines

    def test_as_json(self, type_, probe) -> None:
        typed = type_("health", "--live", "--port", str(probe(CUT_OFF)), "--json")
        assert typed.document["schema"] == "protojobs/health@1"
        assert (typed.document["item"]["is_well"], typed.document["item"]["is_ready"]) == (True, False)

    def test_where_nobody_answers(self, type_) -> None:
        typed = type_("health", "--live", "--port", str(free_port()))
        assert typed.code == 5
        assert "Nobody answers on 127.0.0.1" in typed.err

    def test_one_that_accepts_and_says_nothing_is_not_waited_for(self, type_) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            typed = type_("health", "--live", "--port", str(silent.getsockname()[1]), "--timeout", "200ms")
        assert typed.code == 5

    def test_something_else_that_answers_is_no_worker(self, type_) -> None:
        def answer(server: socket.socket) -> None:
            line, _ = server.accept()
            with line:
                line.recv(4096)
                line.sendall(b"HTTP/1.1 200 OK\r\n\r\n<html>")

        with socket.create_server(("127.0.0.1", 0)) as server:
            thread = threading.Thread(target=answer, args=(server,))
            thread.start()
            typed = type_("health", "--live", "--port", str(server.getsockname()[1]))
            thread.join()
        assert typed.code == 1
        assert "no probe of a protojobs worker" in typed.err

    def test_it_loads_neither_a_driver_nor_a_worker(self, probe) -> None:
        program = (
            "import sys; from protojobs.cli import main; code = main(sys.argv[1:]);"
            "heavy = {'rich', 'sqlalchemy', 'asyncio', 'http', 'shop'};"
            "heavy |= {'protojobs.worker.loop', 'protojobs.cli.commands.worker'};"
            "sys.exit(f'{heavy & set(sys.modules)}' if heavy & set(sys.modules) else code)"
        )
        words = ("health", "--live", "--port", str(probe(WELL)))
        environment = {**os.environ, "PROTOJOBS_APP": "shop", "PROTOJOBS_URL": "sqlite:///jobs.db"}
        ran = subprocess.run(
            [sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=30, env=environment
        )
        assert ran.returncode == 0, ran.stderr

    def test_live_and_ready_contradict_and_live_needs_a_port(self, type_, url) -> None:
        assert type_("health", "--live", "--ready", "--port", "1").code == 2
        typed = type_("health", "--live")
        assert typed.code == 2
        assert "--port 7001" in typed.err


class TestAskingTheStore:
    def test_one_that_answers(self, type_, url) -> None:
        typed = type_("health", "--ready")
        assert (typed.code, typed.lines[:2]) == (0, [["store", url], ["ready", "yes"]])

    def test_one_that_is_not_migrated(self, type_) -> None:
        assert type_("health", "--url", "sqlite:///new.db").code == 8

    def test_one_that_is_away(self, type_) -> None:
        typed = type_("health", "--url", f"redis://127.0.0.1:{free_port()}/0", "--timeout", "1s")
        assert typed.code == 5

    def test_one_that_hangs_is_not_waited_for(self, type_, monkeypatch) -> None:
        hangs = threading.Event()

        def hang(_url: str) -> None:
            hangs.wait(LONG_S)
            raise StoreUnavailable("at last")

        monkeypatch.setattr("protojobs.cli.commands.health.create_driver", hang)
        monkeypatch.setattr("protojobs.cli.commands.health.MARGIN_S", 0.0)
        typed = type_("health", "--url", "sqlite:///jobs.db", "--timeout", "100ms")
        hangs.set()
        assert typed.code == 5
        assert "has not answered for 0.1 s" in typed.err

    def test_none_is_configured(self, type_) -> None:
        assert type_("health").code == 2


class TestARealWorker:
    def test_its_probe_answers_and_says_when_it_stops(self, start, url, push, type_) -> None:
        port = free_port()
        push("slow", '{"seconds": 60}')
        worker = start("worker", "--app", "shop", "--probe-port", str(port))
        worker.says("slow began")
        until("it is ready", lambda: type_("health", "--port", str(port)).code == 0)
        assert type_("health", "--live", "--port", str(port), "--json").document["item"]["workers"][0]["slots"] == 8
        worker.started.terminate()
        until("it is not ready", lambda: type_("health", "--port", str(port)).code == 1)
        assert type_("health", "--live", "--port", str(port)).code == 0
        assert "it is stopping" in type_("health", "--port", str(port)).err
        worker.started.terminate()
        assert worker.ended().code == 0

    def test_a_supervisor_answers_for_its_workers(self, start, url, type_) -> None:
        port = free_port()
        supervisor = start("worker", "--processes", "2", "--probe-port", str(port))
        until("both are ready", lambda: type_("health", "--port", str(port)).code == 0)
        item = type_("health", "--port", str(port), "--json").document["item"]
        assert sum(worker["slots"] for worker in item["workers"]) == 16
        supervisor.started.terminate()
        assert supervisor.ended().code == 0


class Told:
    """A service manager: what it was told."""

    def __init__(self, folder: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.address = str(folder / "notify")
        self.socket.bind(self.address)
        self.socket.settimeout(LONG_S)
        self.heard: list[str] = []

    def hears(self, line: str) -> list[str]:
        """Wait until this is among what it is told; all that came with it."""
        while True:
            lines = self.socket.recv(4096).decode().split("\n")
            self.heard += lines
            if line in lines:
                return lines


@pytest.fixture
def told(tmp_path_factory) -> Iterator[Told]:
    one = Told(tmp_path_factory.mktemp("n"))
    yield one
    one.socket.close()


class TestSystemd:
    def test_it_hears_that_the_worker_is_ready_lives_and_stops(self, told, monkeypatch, start, url) -> None:
        monkeypatch.setenv("NOTIFY_SOCKET", told.address)
        monkeypatch.setenv("WATCHDOG_USEC", "600000")
        worker = start("worker")
        assert "STATUS=working, 0 of 8 slots busy" in told.hears("READY=1")
        told.hears("WATCHDOG=1")
        worker.started.terminate()
        told.hears("STOPPING=1")
        assert worker.ended().code == 0
        assert [told.heard.count(line) for line in ("READY=1", "STOPPING=1")] == [1, 1]

    def test_one_whose_loop_stands_still_gives_no_more_signs_of_life(self, told) -> None:
        now = [WELL]
        systemd = Systemd(told.address, 0.3, lambda: now[0])
        told.hears("WATCHDOG=1")
        now[0] = DEAF
        told.hears("STATUS=working; the claim loop has stood still for 2m")
        told.heard.clear()
        for _ in range(3):
            told.hears("STATUS=working; the claim loop has stood still for 2m")
        systemd.close()
        assert "WATCHDOG=1" not in told.heard

    def test_what_it_says_of_others_cannot_break_the_protocol(self, told) -> None:
        systemd = Systemd(
            told.address, None, lambda: Health(state="working", is_live=True, is_ready=False, reasons=("a\nREADY=1",))
        )
        said = told.socket.recv(4096)
        systemd.close()
        assert said == b"STATUS=working; a\\nREADY=1"

    def test_jobs_and_children_do_not_speak_in_its_name(self, told, monkeypatch) -> None:
        for name, value in (("NOTIFY_SOCKET", told.address), ("WATCHDOG_USEC", "1"), ("WATCHDOG_PID", "1")):
            monkeypatch.setenv(name, value)
        systemd = Systemd.from_environment(lambda: WELL)
        assert systemd is not None
        systemd.close()
        assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & os.environ.keys()
        assert "WATCHDOG=1" not in told.socket.recv(4096).decode()  # it is another process that is watched

    def test_without_one_nothing_is_said(self, monkeypatch) -> None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
        assert Systemd.from_environment(lambda: WELL) is None
