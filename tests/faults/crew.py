"""Worker and producer processes of a fault run: started, hurt, asked to end; and the history that they leave."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from protojobs import JobQueue

from .history import End, Fault, Final, History, Journals, Pushed, Run
from .jobs import FOLDER_VARIABLE, WORKER_VARIABLE

__all__ = ["Crew", "Member", "wait_for"]

TESTS = Path(__file__).resolve().parent.parent
GONE_S = 10.0
PAGE = 1_000


def wait_for(what: str, condition: Callable[[], object], within_s: float) -> float:
    """Seconds until `condition()` is true; TimeoutError after `within_s`."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > within_s:
            raise TimeoutError(f"waited {within_s:g} s in vain for {what}")
        time.sleep(0.02)
    return time.monotonic() - began


@dataclass
class Member:
    """One process."""

    name: str
    process: subprocess.Popen[bytes]
    via: object = None  # the proxy through which it reaches the store
    is_frozen: bool = False
    hired_at: float = field(default_factory=time.monotonic)

    @property
    def is_there(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    @property
    def has_stopped(self) -> bool:
        """Whether it stands still: a signal has stopped it, and none has let it go on."""
        return os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None


class Crew:
    """The processes of one run. All that is done to them is written down."""

    def __init__(self, folder: Path, *, lease_s: float, concurrency: int = 8, grace_s: float = 25.0) -> None:
        self.folder = folder
        self.lease_s = lease_s
        self.concurrency = concurrency
        self.grace_s = grace_s
        self.faults: list[Fault] = []
        self.exits: dict[str, int] = {}
        self.workers: list[Member] = []
        self.producers: list[Member] = []
        self.tickers: list[Member] = []
        self._hired = 0
        self._journals = Journals(folder)

    # ------------------------------------------------------------------------------------------------------- hiring

    def hire(
        self,
        url: str,
        *,
        app: str = "faults.jobs",
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        via: object = None,
        queue: str = "work",
    ) -> Member:
        """Start `protojobs worker` on the store; it runs the jobs of `app`."""
        self._hired += 1
        name = f"w{self._hired}"
        command = [sys.executable, "-m", "protojobs", "worker", queue, "--app", app, *options]
        settings = {
            "URL": url,
            "LEASE": self.lease_s,
            "CONCURRENCY": self.concurrency,
            "SHUTDOWN_GRACE": self.grace_s,
        }
        member = Member(name, self._start(name, command, settings, env or {}), via)
        self.workers.append(member)
        return member

    def produce(self, url: str, *, module: str = "faults.producer", **options: float | str) -> Member:
        """Start a producer; see producer.py for what it takes, or the other module."""
        self._hired += 1
        name = f"p{self._hired}"
        usual: dict[str, float | str] = {"url": url, "seed": self._hired, "batch": 20, "takes_s": 0.1, "long_s": 0.0}
        usual |= {"long_share": 0.0, "calm": 0, "push_timeout": 5.0, "executors": "thread"}
        command = [sys.executable, "-m", module, json.dumps(usual | options)]
        member = Member(name, self._start(name, command, {}, {}))
        self.producers.append(member)
        return member

    def hire_ticker(self, url: str, *, env: Mapping[str, str] | None = None) -> Member:
        """Start a process that ticks and does nothing else; see ticking.py."""
        self._hired += 1
        name = f"t{self._hired}"
        command = [sys.executable, "-m", "faults.ticking", url]
        member = Member(name, self._start(name, command, {}, env or {}))
        self.tickers.append(member)
        return member

    def _start(
        self, name: str, command: list[str], settings: Mapping[str, object], env: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PROTOJOBS_")}
        environment |= {f"PROTOJOBS_{key}": str(value) for key, value in settings.items()}
        environment |= {"PYTHONPATH": str(TESTS), FOLDER_VARIABLE: str(self.folder), WORKER_VARIABLE: name, **env}
        with open(self.folder / f"{name}.log", "ab") as log:
            return subprocess.Popen(
                command, cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    # ------------------------------------------------------------------------------------------------------- hurting

    def kill(self, member: Member) -> None:
        """kill -9, and wait until it is gone."""
        began = time.monotonic()
        member.process.kill()
        member.process.wait(GONE_S)
        self._note("kill", member, began)

    def freeze(self, member: Member, kind: str = "freeze") -> Callable[[], None]:
        """Stop it where it stands; answers what lets it go on. Written down as `kind`."""
        began = time.monotonic()
        member.process.send_signal(signal.SIGSTOP)
        member.is_frozen = True

        def thaw() -> None:
            if member.is_frozen:
                member.is_frozen = False
                member.process.send_signal(signal.SIGCONT)
                self._note(kind, member, began)

        return thaw

    def catch(self, ticker: Member) -> None:
        """Have it stop itself, the next time that it has read what is due and not fired it yet: see `has_stopped`."""
        ticker.process.send_signal(signal.SIGUSR1)

    def stop(self, member: Member, *, within_s: float) -> float:
        """SIGTERM, and wait for its end; how long that took. Killed, and TimeoutError, if it takes longer."""
        began = time.monotonic()
        member.process.terminate()
        try:
            self.exits[member.name] = member.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill(member)
            raise TimeoutError(f"worker {member.name} has not ended {within_s:g} s after SIGTERM") from None
        finally:
            self._note("stop", member, began)
        return time.monotonic() - began

    def note(self, kind: str, began: float, worker: str = "") -> None:
        """Write down what was done by other means, from `began` till now."""
        self.faults.append(Fault(kind, began, time.monotonic(), worker))

    def _note(self, kind: str, member: Member, began: float) -> None:
        self.note(kind, began, member.name)

    def dismiss(self) -> None:
        """Kill whatever is left."""
        for member in (*self.workers, *self.producers, *self.tickers):
            if member.is_there:
                member.process.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    member.process.wait(GONE_S)

    # -------------------------------------------------------------------------------------------------- what came of it

    @property
    def awake_tickers(self) -> list[Member]:
        """Those that are there, have begun to tick, and are not frozen."""
        begun = {entry["worker"] for entry in self.entries("ticking")}
        return [one for one in self.tickers if one.is_there and not one.is_frozen and one.name in begun]

    @property
    def at_work(self) -> list[Member]:
        """The workers that are there and awake."""
        return [member for member in self.workers if member.is_there and not member.is_frozen]

    @property
    def left(self) -> list[Member]:
        """The workers that ended and were neither killed nor asked to end."""
        struck = {fault.worker for fault in self.faults if fault.kind in ("kill", "stop")}
        return [member for member in self.workers if not member.is_there and member.name not in struck]

    @property
    def ready(self) -> list[Member]:
        """Those of them that have begun to work: to a signal before that they have no answer."""
        begun = {entry["worker"] for entry in self.entries("worker.starting")}
        return [member for member in self.at_work if member.name in begun]

    def entries(self, *what: str) -> list[dict[str, object]]:
        """What the journals say about that so far."""
        return [entry for entry in self._journals.entries() if entry["what"] in what]

    def history(self, queue: JobQueue, fired: Mapping[str, Pushed] | None = None) -> History:
        """All that happened, and how the store says it ended. `fired`: jobs that nobody pushed, but a schedule did."""
        history = History(faults=[*self.faults], exits=dict(self.exits))
        running: dict[tuple[str, int, str], Run] = {}
        for entry in self._journals.entries():
            _take_in(history, running, entry)
        history.pushed |= fired or {}
        ids = sorted(history.pushed)
        failed = {row.job_id for row in queue.failed_jobs()}
        for at in range(0, len(ids), PAGE):
            for record in queue.driver.get(ids[at : at + PAGE]):
                final = Final(str(record.status), record.attempts, record.id in failed)
                history.finals[record.id] = final
        return history

    def last_words(self) -> str:
        """The ends of the logs that say something unusual, for whoever reads of a failure."""
        tails = []
        for file in sorted(self.folder.glob("*.log")):
            lines = [
                line for line in file.read_text(errors="replace").splitlines() if "Traceback" in line or "Error" in line
            ]
            if lines:
                tails.append(f"{file.stem}: {lines[-1]}")
        return "\n".join(tails[-20:])


def _take_in(history: History, running: dict[tuple[str, int, str], Run], entry: dict[str, object]) -> None:
    at = float(str(entry["at"]))
    match entry:
        case {"what": "pushing", "jobs": list(jobs)}:
            for job, delay, may_fail in jobs:
                history.pushed.setdefault(job, Pushed(at, float(delay), may_fail=bool(may_fail)))
        case {"what": "acknowledged", "id": str(job)}:
            history.pushed[job].is_acknowledged = True
        case {"what": "start", "id": str(job), "claim_seq": int(seq), "attempt": int(attempt), "worker": str(worker)}:
            run = Run(job, seq, attempt, worker, at)
            history.runs.append(run)
            running[job, seq, worker] = run
        case {"what": "finish", "id": str(job), "claim_seq": int(seq), "worker": str(worker), "end": end}:
            run = running[job, seq, worker]
            run.ended, run.end, run.again_in = at, End(end), float(str(entry.get("again_in", 0.0)))
        case _:
            return
