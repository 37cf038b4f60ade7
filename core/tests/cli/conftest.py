"""A command line to type on: in this process, in one of its own, or on a terminal."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from protojobs import JobQueue, create_driver
from protojobs.cli import main
from protojobs.config import ENV_PREFIX
from protojobs.port.schedules import Schedule

FAR = datetime(2090, 7, 3, 7, 0, tzinfo=UTC)  # a Monday; in Paris it is nine o'clock

APP = """
import signal, time
from protojobs import Job, JobContext, JobQueue, create_driver, job

class Welcome(Job):
    name = "mail.welcome"
    queue = "emails"
    def handle(self, data): return "hello " + data["email"]

@job(name="add", queue="math")
def add(a: int, b: int) -> int: return a + b

@job(name="sum", queue="math", store_result=True)
def sum_(a: int, b: int) -> dict[str, int]: return {"sum": a + b}

@job(name="broken", max_retries=0)
def broken(text: str = "no luck"): raise ValueError(text)

@job(name="flaky", max_retries=3, retry_delay=3600)
def flaky(): raise RuntimeError("not today")

@job(name="chatty")
def chatty(context: JobContext): context.log.info("half-way")

@job(name="slow")
def slow(seconds: float = 60):
    print("slow began", flush=True)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends: time.sleep(0.02)

@job(name="stuck", timeout=0.2)
def stuck():
    print("stuck began", flush=True)
    time.sleep(60)

@job(name="robbed")
def robbed():
    store = JobQueue.from_config().driver
    for worker in store.workers(): store.leave(worker.id)
    store.reclaim(10)

queue = JobQueue(create_driver("sqlite:///own.db"), {"default_queue": "mine"})
not_a_queue = 41
"""


# Takes its stdin for its controlling terminal, so that Ctrl-C is a signal there, and becomes the command.
OWN_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


class Typed:
    """What a command answered."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def lines(self) -> list[list[str]]:
        return [line.split("\t") for line in self.out.splitlines()]

    @property
    def document(self) -> dict[str, Any]:
        return json.loads(self.out)

    def __repr__(self) -> str:
        return f"exit code {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: it has the application `shop.py`, and there is no configuration."""
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    (tmp_path / "shop.py").write_text(APP)
    return tmp_path


@pytest.fixture
def type_(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Typed]:
    """`type_("jobs", "list", stdin="...")`: the command in this process, its output in pipes."""

    def run(*words: str, stdin: str = "") -> Typed:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        try:
            code = main(words)
        except SystemExit as error:
            code = error.code
        return Typed(code, *capsys.readouterr())

    return run


@pytest.fixture
def url(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A migrated store, which PROTOJOBS_URL names."""
    address = f"sqlite:///{folder / 'jobs.db'}"
    driver = create_driver(address)
    driver.setup()
    driver.close()
    monkeypatch.setenv("PROTOJOBS_URL", address)
    return address


@pytest.fixture
def queue(url: str) -> JobQueue:
    """The same store, for the test to look into."""
    return JobQueue(create_driver(url))


@pytest.fixture
def push(type_: Callable[..., Typed], url: str) -> Callable[..., str]:
    """`push("add", '{"a": 1, "b": 2}')` -> the job's id."""

    def run(*words: str) -> str:
        typed = type_("push", *words, "--app", "shop")
        assert typed.code == 0, typed
        return typed.out.strip()

    return run


@pytest.fixture
def keep(queue: JobQueue) -> Callable[..., None]:
    """`keep("nightly", spec="0 3 * * *", ...)`: a schedule of that id is in the store."""

    def run(name: str, spec: str = "0 9 * * MON", **changes: object) -> None:
        one = Schedule(
            id=name, spec=spec, queue="reports", job_name="broken", job_class="shop.broken", data='{"text": "x"}',
            timezone="Europe/Paris", next_due_at=FAR,
        )  # fmt: skip
        assert queue.driver.save_schedule(replace(one, **changes), version=0)

    return run


class Process:
    """`protojobs ...` in a process of its own."""

    def __init__(self, *words: str) -> None:
        self.started = subprocess.Popen(
            [sys.executable, "-m", "protojobs.cli", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def says(self, text: str) -> None:
        """Wait until stdout says this (the test's own time limit ends a vain wait)."""
        assert self.started.stdout is not None
        for line in self.started.stdout:
            if text in line:
                return
        pytest.fail(f"it ended without saying {text!r}: {self.ended()}")

    def notes(self, text: str) -> None:
        """Wait until stderr says this, likewise."""
        assert self.started.stderr is not None
        for line in self.started.stderr:
            if text in line:
                return
        pytest.fail(f"it ended without noting {text!r}: {self.ended()}")

    def ended(self, within_s: float = 30) -> Typed:
        out, err = self.started.communicate(timeout=within_s)
        return Typed(self.started.returncode, out, err)


@pytest.fixture
def start():
    """`start("worker", ...)` -> a Process, killed at the end of the test if it is still there."""
    made: list[Process] = []

    def run(*words: str) -> Process:
        made.append(Process(*words))
        return made[-1]

    yield run
    for process in made:
        if process.started.poll() is None:
            process.started.kill()
        process.started.communicate()


@pytest.fixture
def on_terminal() -> Callable[..., Typed]:
    """`on_terminal("stats", keys="y\\n", columns=80)`: stdin, stdout and stderr are one terminal.

    The keys are pressed when it asks something: when it has written `[y/N]`.
    """

    def run(*words: str, keys: str = "", columns: int = 100) -> Typed:
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns), "LINES": "40"}
        command = [sys.executable, "-m", "protojobs.cli", *words]
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-c", OWN_TERMINAL, *command],
            stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        seen, ends, type_again_at = b"", time.monotonic() + 30, 0.0
        while time.monotonic() < ends:
            # A key may fall into the moment in which the terminal changes its mode, and be dropped: type it again.
            if keys and b"[y/N]" in seen and time.monotonic() >= type_again_at:
                os.write(ours, keys.encode())
                type_again_at = time.monotonic() + 2
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    piece = os.read(ours, 4096)
                except OSError:  # Linux says EIO at the end
                    piece = b""
                if not piece:
                    break
                seen += piece
        else:
            process.kill()
        os.close(ours)
        return Typed(process.wait(10), seen.decode().replace("\r\n", "\n"), "")

    return run
