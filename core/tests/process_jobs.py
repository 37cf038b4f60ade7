"""Jobs for test_process_executor.py, in a module that a child process can import."""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path

from protojobs import Job, JobContext, Retry, Snooze, job
from protojobs.errors import JobTimeout
from protojobs.port.lifecycle import Verb
from protojobs.port.records import Settlement
from protojobs.worker.runs.children.frames import Ended, encode

time.sleep(float(os.environ.get("PROCESS_JOBS_IMPORT_S", "0")))  # an application that is slow to import


@job(name="p.add")
def add(a: int, b: int) -> int:
    return a + b


@job(name="p.pid")
def pid() -> int:
    return os.getpid()


@job(name="p.dies soon")
def dies_soon() -> int:
    threading.Timer(0.05, os._exit, (3,)).start()
    return os.getpid()


@job(name="p.thread", executor="thread")
def in_thread() -> int:
    return os.getpid()


@job(name="p.process", executor="process")
def in_process() -> int:
    return os.getpid()


@job(name="p.async")
async def in_loop() -> int:
    await asyncio.sleep(0)
    return os.getpid()


@job(name="p.object")
def an_object() -> object:
    return object()


@job(name="p.ignores")
def ignores() -> list[str]:
    return [name for name in ("SIGINT", "SIGHUP") if signal.getsignal(getattr(signal, name)) is signal.SIG_IGN]


@job(name="p.speaks")
def speaks() -> None:
    print("said by the job")
    print("complained by the job", file=sys.stderr)
    print("read:", repr(sys.stdin.read()))


@job(name="p.snoozes")
def snoozes() -> Snooze:
    return Snooze(30)


@job(name="p.retries", max_retries=2)
def retries() -> Retry:
    return Retry(in_=10)


class Picky(Job):
    name = "p.picky"
    max_retries = 5
    retry_on = (OSError,)
    discard_on = (KeyError,)

    def handle(self, data: dict[str, str]) -> None:
        raise {"os": OSError, "key": KeyError, "value": ValueError}[data["raise"]]("for the test")

    def retry_in(self, attempt: int, exception: BaseException) -> float:
        return 77.0 if isinstance(exception, OSError) else 1.0


TENANT: ContextVar[str] = ContextVar("tenant", default="nobody")


@job(name="p.tenant")
def tenant(name: str) -> str:
    before = TENANT.get()
    TENANT.set(name)
    return before


@job(name="p.atenant")
async def async_tenant(name: str) -> str:
    before = TENANT.get()
    TENANT.set(name)
    return before


class CrashesOddly(Job):
    """Its process dies, and what it says of that is of no use."""

    name = "p.crashes oddly"
    max_retries = 1
    says: Callable[[], float]

    def handle(self, data: object) -> None:
        os._exit(3)

    def retry_in(self, attempt: int, exception: BaseException) -> float:
        return type(self).says()


class WithFailed(Job):
    name = "p.with-failed"
    max_retries = 0
    seen: list[tuple[int, str, object]] = []

    def handle(self, data: object) -> None:
        raise ValueError("no good")

    def failed(self, exception: BaseException, data: object) -> None:
        self.seen.append((os.getpid(), str(exception), data))


@job(name="p.sleeps", timeout=0.3, max_retries=0)
def sleeps_in_c() -> None:
    # Holds the interpreter lock, so that no Python code of this process runs meanwhile, no signal handler either.
    ctypes.PyDLL(None).sleep(60)


@job(name="p.cleans", timeout=0.3, max_retries=0)
def cleans_up(path: str) -> None:
    try:
        time.sleep(60)
    finally:
        Path(path).write_text("clean")


@job(name="p.leaves", timeout=0)
def leaves_a_thread_in_c(path: str) -> None:
    def takes_the_interpreter() -> None:
        Path(path).touch()
        ctypes.PyDLL(None).sleep(60)

    threading.Timer(0.2, takes_the_interpreter).start()


@job(name="p.helper", timeout=0.3, max_retries=0)
def has_a_helper(path: str) -> None:
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    Path(path).write_text(str(helper.pid))
    ctypes.PyDLL(None).sleep(60)


@job(name="p.ends a copy", timeout=10)
def ends_a_copy() -> int:
    is_ready, says = os.pipe()
    if not (copy := os.fork()):
        os.write(says, b"x")
        time.sleep(60)
    os.read(is_ready, 1)  # what strikes before, Python drops
    os.kill(copy, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])


@job(name="p.answers", max_retries=0)
def answers_for_another() -> None:
    other = Settlement(id="other", claim_seq=1, reserved_by="w", verb=Verb.COMPLETE)
    answer = Ended(settlement=other, result=None, error=None, duration_s=0.0, was_run=True, resident_bytes=0)
    os.write(int(sys.argv[1]), encode(answer))
    time.sleep(60)


@job(name="p.exits", max_retries=10, retry_delay=0)
def exits() -> None:
    os._exit(3)


@job(name="p.segfaults", max_retries=0)
def segfaults() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


@job(name="p.progress")
def reports_and_waits(context: JobContext) -> str:
    context.progress(0.4)
    while not context.cancelled():
        time.sleep(0.005)
    return "saw it"


@job(name="p.deaf", timeout=0)
def deaf() -> None:
    while True:
        time.sleep(0.01)


@job(name="p.long", timeout=0)
def long(folder: str, holds_lock: bool) -> None:
    (Path(folder) / str(os.getpid())).touch()
    if holds_lock:
        re.match(r"(a+)+$", "a" * 60 + "b")
    time.sleep(60)


@job(name="p.async-exits", max_retries=0)
async def async_exits() -> None:
    os._exit(4)


@job(name="told.thread", timeout=60)
def told_in_thread(context: JobContext) -> Snooze | str:
    return _told(context)


@job(name="told.child", timeout=60, executor="process")
def told_in_child(context: JobContext) -> Snooze | str:
    return _told(context)


@job(name="told.async", timeout=60)
async def told_on_the_loop(context: JobContext) -> Snooze | str:
    context.progress(0.25)
    while not (context.stopping or context.cancelled()):
        await asyncio.sleep(0.01)
    return Snooze(3_600) if context.stopping else "cancelled"


def _told(context: JobContext) -> Snooze | str:
    """Until somebody wants something of it: as a job that keeps a checkpoint would."""
    context.progress(0.25)
    while not (context.stopping or context.cancelled()):
        time.sleep(0.01)
    return Snooze(3_600) if context.stopping else "cancelled"


@job(name="soft.thread", timeout=30, soft_timeout=0.3, max_retries=0)
def soft_in_thread(is_caught: bool) -> str:
    return _until_the_soft_limit(is_caught)


@job(name="soft.child", timeout=30, soft_timeout=0.3, max_retries=0, executor="process")
def soft_in_child(is_caught: bool) -> str:
    return _until_the_soft_limit(is_caught)


@job(name="soft.async", timeout=30, soft_timeout=0.3, max_retries=0)
async def soft_on_the_loop(is_caught: bool) -> str:
    try:
        await asyncio.sleep(60)
    except JobTimeout:
        if not is_caught:
            raise
        await asyncio.sleep(0.05)  # what cleans up may await
        return "cleaned up"
    return "too late"


def _until_the_soft_limit(is_caught: bool) -> str:
    try:
        while True:
            time.sleep(0.01)
    except JobTimeout:
        if not is_caught:
            raise
        return "cleaned up"


@job(name="soft.deaf", timeout=1, soft_timeout=0.2, max_retries=0)
def soft_and_deaf() -> None:
    while True:
        try:
            time.sleep(0.01)
        except JobTimeout:
            pass


@job(name="soft.deaf async", timeout=1, soft_timeout=0.2, max_retries=0)
async def soft_and_deaf_on_the_loop() -> None:
    while True:
        try:
            await asyncio.sleep(60)
        except JobTimeout:
            pass
