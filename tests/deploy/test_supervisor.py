"""The Supervisor program, run for real: it starts a worker, another after kill -9, and stops it within its time."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from files import DEPLOY, PROGRAM, SUPERVISING_S, arguments, parsed, settings_of, stop_s

from protojobs import JobQueue, create_driver, job
from protojobs.cli.exits import Exit

PROGRAM_FILE = DEPLOY / "supervisor" / "protojobs.conf"
LONG_S = 60.0  # for whatever must happen; only a failure waits so long

SHOP = """
import time
from pathlib import Path
from protojobs import job

@job(name="deploy.parcel", queue="emails")
def parcel():
    Path("begun").touch()
    time.sleep(1.5)
    Path("ended").touch()
"""

AROUND = """
[supervisord]
nodaemon=true
logfile={folder}/supervisord.log
pidfile={folder}/supervisord.pid

[unix_http_server]
file={socket}

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix://{socket}

"""


@job(name="deploy.parcel", queue="emails")
def parcel() -> None:
    """What is pushed; the worker runs that of `shop`."""


def until(said: str, is_so: Callable[[], bool]) -> None:
    ends = time.monotonic() + LONG_S
    while not is_so():
        assert time.monotonic() < ends, f"in vain waited until {said}"
        time.sleep(0.1)


class Supervisor:
    """Supervisor with our program, and the store that its worker works on."""

    def __init__(self, folder: Path, socket: Path) -> None:
        self.folder = folder
        self.queue = JobQueue(create_driver(f"sqlite:///{folder}/jobs.db"))
        self.queue.driver.setup()
        (folder / "shop.py").write_text(SHOP)
        program = PROGRAM_FILE.read_text()
        for here, there in (
            (PROGRAM, f"{sys.executable} -m protojobs.cli"),
            ("/srv/shop", str(folder)),
            ("/var/log/shop", str(folder)),
            ('"postgresql:///shop"', f'"sqlite:///{folder}/jobs.db"'),
            ('"shop.jobs"', '"shop"'),
            ("user=shop\n", ""),
        ):
            assert here in program
            program = program.replace(here, there)
        self._configuration = folder / "supervisord.conf"
        self._configuration.write_text(AROUND.format(folder=folder, socket=socket) + program)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(self._configuration)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
        )

    def control(self, *words: str) -> str:
        ran = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(self._configuration), *words],
            capture_output=True, text=True, timeout=LONG_S, cwd=self.folder,
        )  # fmt: skip
        return ran.stdout + ran.stderr

    def worker(self) -> int:
        """The process id of the worker that the store knows, once there is one that is alive."""
        until("a worker is registered", lambda: bool(self._alive()))
        return self._alive()[-1]

    def _alive(self) -> list[int]:
        return [one.pid for one in self.queue.driver.workers() if Path(f"/proc/{one.pid}").exists()]


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    assert find_spec("supervisor"), "Supervisor is needed for this test: pip install -r requirements/pins.txt"
    with tempfile.TemporaryDirectory() as short:  # a socket's path may have some hundred letters only
        one = Supervisor(tmp_path, Path(short) / "supervisor.sock")
        try:
            yield one
        finally:
            one.process.terminate()
            one.process.wait(LONG_S)
            one.queue.driver.close()


def test_it_keeps_a_worker_and_stops_it_within_its_time(supervisor: Supervisor) -> None:
    first = supervisor.worker()
    os.kill(first, signal.SIGKILL)
    until("another worker is there", lambda: supervisor.worker() != first)
    supervisor.queue.push(parcel.bind())
    until("it has a job", (supervisor.folder / "begun").exists)
    assert "stopped" in supervisor.control("stop", "protojobs-worker")
    assert (supervisor.folder / "ended").exists()  # it was let finish
    assert supervisor.queue.stats().completed == 1
    log = (supervisor.folder / "supervisord.log").read_text()
    assert re.search(r"stopped: protojobs-worker \(exit status 0\)", log), log
    assert "killing" not in log, log
    assert "STOPPED" in supervisor.control("status", "protojobs-worker")


def test_it_has_the_time_to_stop_that_it_needs_and_the_command_exists() -> None:
    settings = settings_of(PROGRAM_FILE.read_text())
    assert float(settings["stopwaitsecs"][0]) >= stop_s() + SUPERVISING_S
    assert settings["stopsignal"] == ["TERM"]
    assert settings["exitcodes"] == [f"{Exit.USAGE.value},{Exit.NOT_SUPPORTED.value}"]
    (command,) = settings["command"]
    assert parsed(arguments(command))["queues"] == ("emails", "default")
