"""Real worker processes for the tests: started, watched through the journal they append to, ended by their id."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
WAIT_S = 60.0


def wait_for(what: str, condition: Callable[[], object], within_s: float = WAIT_S) -> float:
    """Seconds until `condition()` is true; fails the test after `within_s`."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within_s, f"waited {within_s:g} s in vain for {what}"
        time.sleep(0.01)
    return time.monotonic() - began


class Crew:
    """The workers of one test, and their journal."""

    def __init__(self, url: str, folder: Path, *, lease_s: float) -> None:
        self.url = url
        self.folder = folder
        self.lease_s = lease_s
        self.journal = folder / "journal"
        self.journal.touch()
        self.members: list[subprocess.Popen[bytes]] = []

    def hire(self, *, concurrency: int = 8, until_empty: bool = False) -> subprocess.Popen[bytes]:
        """Start a worker process."""
        options = {
            "url": self.url,
            "journal": str(self.journal),
            "gate": str(self.folder / "gate"),
            "lease": self.lease_s,
            "concurrency": concurrency,
            "until_empty": until_empty,
        }
        command = [sys.executable, str(HERE / "worker_process.py"), json.dumps(options)]
        member = subprocess.Popen(command, cwd=self.folder, stdin=subprocess.DEVNULL)
        self.members.append(member)
        return member

    def open_gate(self) -> None:
        """Let the jobs that wait at the gate go on."""
        (self.folder / "gate").touch()

    def entries(self, what: str) -> list[dict[str, object]]:
        """The journal's complete lines about `what`."""
        lines = self.journal.read_text().split("\n")[:-1]
        return [entry for line in lines if (entry := json.loads(line))["what"] == what]

    def kill(self, member: subprocess.Popen[bytes]) -> None:
        """kill -9, and wait until it is gone."""
        member.send_signal(signal.SIGKILL)
        member.wait(10)

    def dismiss(self) -> None:
        """End whatever is left."""
        for member in self.members:
            if member.poll() is None:
                member.send_signal(signal.SIGCONT)
                member.kill()
                member.wait(10)


def write_entry(journal: str, what: str, **facts: object) -> None:
    """One line, in one write: O_APPEND keeps the lines of many processes apart."""
    line = json.dumps({"what": what, "pid": os.getpid(), **facts}) + "\n"
    fd = os.open(journal, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)
