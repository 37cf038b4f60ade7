"""The processes of one measurement: started here, waited for with a limit, and ended by their id."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import counted
import stores
from subjects import OURS

HERE = Path(__file__).resolve().parent
LOOK_S = 0.005


class Failed(Exception):
    """A process died or took too long; the text ends with its last words."""


@dataclass(frozen=True)
class Scene:
    """One subject on one empty store, with a folder for what it leaves behind."""

    subject: str
    kind: str
    url: str
    folder: Path
    concurrency: int = 8
    limit_s: float = 120
    server: str = ""
    depths: tuple[int, int] = (1_000, 1_000_000)
    hold_s: float = 20
    is_reversed: bool = False  # of two drains the other one comes first, as in every second round

    @contextlib.contextmanager
    def anew(self, more_s: float) -> Iterator[Scene]:
        """The same subject on another empty store, on the same server, with so much more time for each thing."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        with stores.empty(self.kind, self.server, folder) as url:
            yield replace(self, url=url, folder=folder, limit_s=self.limit_s + more_s)

    def start(self, *command: str, has_pipes: bool = False) -> subprocess.Popen[str]:
        """Start a program on this store. It stands in an empty folder: no settings of the caller reach it."""
        kept = {
            k: v for k, v in os.environ.items() if not k.startswith("PROTOJOBS_") or k.startswith("PROTOJOBS_TEST_")
        }
        own = {counted.FOLDER_VARIABLE: str(self.folder), "PROTOJOBS_URL": self.url, "PYTHONUNBUFFERED": "1"}
        own["PROTOJOBS_BENCH_CONCURRENCY"] = str(self.concurrency)
        own["PYTHONPATH"] = os.pathsep.join((str(HERE), str(HERE.parent / "tests")))
        pipe = subprocess.PIPE if has_pipes else subprocess.DEVNULL
        with open(self.folder / "stderr.log", "ab") as log:
            return subprocess.Popen(
                command, env=kept | own, cwd=self.folder, stdin=pipe, stdout=pipe, stderr=log, text=True
            )

    def words(self) -> str:
        """The last of what its processes said."""
        log = self.folder / "stderr.log"
        return log.read_text(errors="replace").strip()[-1500:] if log.exists() else ""


class Side:
    """A `side.py`, spoken to through its pipes."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        command = [sys.executable, str(HERE / "side.py"), scene.subject, scene.kind, scene.url]
        self.process = scene.start(*command, has_pipes=True)

    def ask(self, command: str, *words: float) -> dict[str, float]:
        """The answer to one command, within the scene's limit."""
        assert self.process.stdin
        assert self.process.stdout
        watch = threading.Timer(self._scene.limit_s, self.process.kill)
        watch.start()
        try:
            with contextlib.suppress(BrokenPipeError):  # its last words say why
                print(json.dumps([command, *words]), file=self.process.stdin, flush=True)
            answer = self.process.stdout.readline()
        finally:
            watch.cancel()
        if not answer:
            raise Failed(f"{command} gave no answer\n{self._scene.words()}")
        return dict(json.loads(answer))

    def close(self) -> None:
        """End it: in order if it follows within a few seconds."""
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            end(self.process)


@contextlib.contextmanager
def side(scene: Scene) -> Iterator[Side]:
    """A process that pushes and looks, on a store that is set up."""
    one = Side(scene)
    try:
        one.ask("setup")
        yield one
    finally:
        one.close()


@contextlib.contextmanager
def workers(scene: Scene, side_: Side, count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Worker processes for the length of the block; for a store in memory, the side itself."""
    if scene.kind == "memory":
        side_.ask("work")
        yield [side_.process]
        return
    life_s = round(3 * scene.limit_s)  # longer than any measurement: for workers whose benchmark was killed
    if scene.subject == OURS:
        command = [sys.executable, "-m", "protojobs", "worker", "--app", "bench_jobs", "--no-scheduler"]
        command += ["--concurrency", str(scene.concurrency), "--log-level", "error", "--max-time", f"{life_s}s"]
    else:
        command = [sys.executable, str(HERE / "side.py"), scene.subject, scene.kind, scene.url, str(life_s)]
    started: list[subprocess.Popen[str]] = []
    try:
        for _ in range(count):
            started.append(scene.start(*command))
        yield started
    finally:
        for process in started:
            end(process)


def end(process: subprocess.Popen[str]) -> None:
    """The store is thrown away next: no need to be gentle."""
    process.kill()
    process.wait(10)


def until(scene: Scene, is_so: Callable[[], bool], running: list[subprocess.Popen[str]], what: str) -> None:
    """Wait within the scene's limit, and not for the dead."""
    deadline = time.monotonic() + scene.limit_s
    while not is_so():
        if any(process.poll() is not None for process in running):
            raise Failed(f"a worker died\n{scene.words()}")
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {scene.limit_s:g} s\n{scene.words()}")
        time.sleep(LOOK_S)


def resident_mib(pid: int) -> float:
    """Memory of a process, pages that it shares counted by its share where the system tells (Linux)."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    told = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, timeout=10)
    return int(told.stdout or 0) / 1024
