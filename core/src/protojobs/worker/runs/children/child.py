"""The child process of a worker: imports the application, runs one job at a time, and answers how each has ended.

Started as `python -m protojobs.worker.runs.children.child FD`: it hears its worker on standard input and
answers on FD. Both are taken out of the reach of jobs, whose input is empty and whose output is the worker's. It ends
when its worker does.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from contextvars import copy_context
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue

import msgspec

from protojobs.clock import SYSTEM_CLOCK
from protojobs.errors import JobTimeout, ResourceFailed
from protojobs.forks import this_process
from protojobs.hooks.hooks import Hooks
from protojobs.hooks.installed_plugins import load_hooks
from protojobs.interrupts import Interrupted
from protojobs.jobs.definition import REGISTRY
from protojobs.logs import RUNNING
from protojobs.new_jobs import JobMaker, job_maker
from protojobs.port.records import Fence
from protojobs.worker.outcome import Outcome
from protojobs.worker.runs.children.child_resources import ChildResources
from protojobs.worker.runs.children.frames import (
    RESULT_BYTES_MAX,
    Begin,
    Begun,
    Cancel,
    End,
    Ended,
    FrameReader,
    FromChild,
    Logged,
    OutOfPlace,
    Progress,
    Ready,
    Stopping,
    ToChild,
    Unknown,
    Work,
    decode_to_child,
    encode,
)
from protojobs.worker.runs.failure_text import storable
from protojobs.worker.runs.run import SOFT, Run

__all__ = ["main"]

LEAVE_S = 1.0  # what an idle child has for `atexit` and the like once its worker is gone
PIECE_BYTES = 256 * 1024
TEXT_CHARS_MAX = 60_000  # of one exception or log line
_PR_SET_PDEATHSIG = 1
_log = logging.getLogger("protojobs.child")


class Child:
    """One child: a thread that hears the worker, and the main thread, in which the jobs run."""

    def __init__(self, heard: int, said: int) -> None:
        self._heard, self._said = heard, said
        self._say_lock = threading.Lock()
        self._work: SimpleQueue[Begin | Work | None] = SimpleQueue()
        self._run: Run | None = None
        self._cancelled: Fence | None = None  # may be heard of before the run begins
        self._stopping: Fence | None = None  # as well
        self._is_ending = False
        self._warned: Run | None = None  # its soft limit is over, and the main thread has not heard of it
        self._hooks = Hooks()
        self._maker: JobMaker | None = None
        self._resources = ChildResources()
        self._process = this_process()
        os.register_at_fork(after_in_child=_end_by_sigterm)

    def serve(self) -> None:
        """Until the worker closes its end, or ends us."""
        # Whoever sends SIGTERM to all processes of a service means the worker, which lets its jobs finish. Only a
        # child that its worker has told to end ends by it.
        signal.signal(signal.SIGTERM, self._on_signal)
        threading.Thread(target=self._hear, name="protojobs-worker", daemon=True).start()
        try:
            while (message := self._work.get()) is not None:
                match message:
                    case Begin():
                        self._begin(message)
                    case Work():
                        self._perform(message)
                del message  # an idle child keeps nothing of its last job
        except Interrupted:
            _flush()
            os._exit(0)
        self._resources.close()

    def _begin(self, message: Begin) -> None:
        sys.path[:] = message.path
        _import_all(message.modules)
        settings = message.settings
        self._hooks = load_hooks(settings.plugins, settings.plugins_disabled)
        self._maker = job_maker(REGISTRY, settings, message.store, self._hooks)
        root, ours = logging.getLogger(), logging.getLogger("protojobs")
        if not root.handlers:  # the application has set up none
            root.addHandler(_Relay(self._say, self._process))
            root.setLevel(message.log_levels[0])
            ours.setLevel(message.log_levels[1])
        try:
            self._resources.open(is_async=False)
        except ResourceFailed as error:
            _log.exception("%s", error)  # said to the worker; it gives the job back
            raise SystemExit(1) from error
        self._say(Ready())

    def _perform(self, message: Work) -> None:
        self._say(Begun())
        claimed = message.claimed
        if REGISTRY.find(claimed.job_name) is None:
            _import_all((message.module,))
        definition = REGISTRY.find(claimed.job_name)
        if definition is None or definition.job_class != message.job_class:
            self._say(Unknown())
            return
        run = self._run = Run(claimed, definition, self._hooks, SYSTEM_CLOCK, self._report)
        run.is_open = True  # by the worker
        run.resources, run.maker = self._resources.values, self._maker
        if self._cancelled == run.context.fence:
            run.tell_cancelled()
        if self._stopping == run.context.fence:
            run.tell_stopping()
        warning = self._warning(run)
        try:
            outcome = copy_context().run(self._execute, run)  # what it sets must not be there for the next one
        except JobTimeout:  # it struck beside the job's own code
            run.cut_by = SOFT
            outcome = run.ended_outside()
        finally:
            self._run = None
            warning.cancel()
            _flush()
        is_out_of_place = message.is_guest and run.context.is_out_of_place and outcome.exception is not None
        self._say(OutOfPlace() if is_out_of_place else _ended(outcome))

    def _warning(self, run: Run) -> threading.Timer:
        """Raises JobTimeout in a plain run whose soft limit is over; an async one sees to that itself."""

        def warn() -> None:
            if self._run is run:
                self._warned = run
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

        soft_s = 0.0 if run.is_async else run.definition.soft_timeout
        timer = threading.Timer(soft_s, warn)
        timer.daemon = True
        if soft_s:
            timer.start()
        return timer

    def _execute(self, run: Run) -> Outcome:
        RUNNING.set(run.claimed)
        return self._resources.run_async(run) if run.is_async else run.execute()

    def _report(self, fence: Fence, share: float) -> None:
        self._say(Progress(fence, share))

    def _say(self, message: FromChild) -> None:
        if this_process() != self._process:
            return  # a copy that a job has made; the pipe is its original's
        frame = memoryview(encode(message))
        with self._say_lock:  # a job may report progress from threads of its own
            while frame:
                frame = frame[os.write(self._said, frame) :]

    # ------------------------------------------------------------------------------------- the thread that hears

    def _hear(self) -> None:
        reader = FrameReader()
        try:
            while piece := os.read(self._heard, PIECE_BYTES):
                reader.feed(piece)
                while (body := reader.next()) is not None:
                    self._take(decode_to_child(body))
        finally:
            self._worker_is_gone()

    def _take(self, message: ToChild) -> None:
        match message:
            case Begin() | Work():
                self._work.put(message)
            case Cancel():
                self._cancelled = message.fence
                if (run := self._run) is not None and run.context.fence == message.fence:
                    run.tell_cancelled()
            case Stopping():
                self._stopping = message.fence
                if (run := self._run) is not None and run.context.fence == message.fence:
                    run.tell_stopping()
            case End():
                self._is_ending = True
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    def _worker_is_gone(self) -> None:
        if self._run is None:
            self._work.put(None)
            threading.Event().wait(LEAVE_S)
        os._exit(0)  # nobody hears a result any more, and the job runs again elsewhere

    def _on_signal(self, _number: int, _frame: object) -> None:
        if self._warned is not None:
            warned, self._warned = self._warned, None
            if warned is self._run and not self._is_ending:
                raise JobTimeout
        if self._is_ending:
            self._is_ending = False  # once: what cleans up after it shall not be struck again
            raise Interrupted


class _Relay(logging.Handler):
    """Log records go to the worker, and so to where its own go."""

    def __init__(self, say: Callable[[FromChild], None], process: int) -> None:
        super().__init__()
        self._say = say
        self._process = process

    def emit(self, record: logging.LogRecord) -> None:
        if this_process() != self._process and logging.lastResort is not None:
            logging.lastResort.handle(record)  # of a copy that a job has made: to stderr
            return
        try:
            message = Logged(
                name=record.name,
                level=record.levelno,
                message=storable(record.getMessage()),
                created=record.created,
                exception=storable(logging.Formatter().formatException(record.exc_info)) if record.exc_info else "",
                job_id=getattr(record, "job_id", None),
                attempt=getattr(record, "attempt", None),
            )
            self._say(message)
        except Exception:  # noqa: BLE001  (a record that does not go into its own text; logging says so on stderr)
            self.handleError(record)


def main() -> None:
    """Serve the worker that has started this process."""
    faulthandler.enable()  # a segfault says where, on stderr
    _die_with_worker()
    heard, said = os.dup(0), int(sys.argv[1])
    os.set_inheritable(said, False)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    _heed_signals()
    Child(heard, said).serve()


def _heed_signals() -> None:
    """Undo what the worker's parent has ignored (`nohup`, a shell's `&`): jobs that end their own subprocesses by
    SIGINT, as one does with ffmpeg, would wait for ever. No terminal reaches a child, which has a session of its own.
    """
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def _end_by_sigterm() -> None:
    """A copy that a job makes of this process ends as any other does, such as by `Process.terminate()`."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _die_with_worker() -> None:
    """Ask for SIGKILL when the worker dies, where the system offers that. A job in a C call that holds the interpreter
    lock keeps the hearing thread from seeing the end of the input.
    """
    if sys.platform == "linux":
        import ctypes  # 10 ms, and for Linux only

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _import_all(modules: Iterable[str]) -> None:
    for module in modules:
        try:
            import_module(module)
        except Interrupted:
            raise
        except BaseException as error:  # noqa: BLE001  (the application's code; a job that is not found runs in the worker)
            _log.exception("%s cannot be imported in a child process: %r", module, error)


def _ended(outcome: Outcome) -> Ended:
    error = outcome.exception
    return Ended(
        settlement=outcome.settlement,
        result=_as_json(outcome.result),
        error=None if error is None else (type(error).__qualname__, _said(error)),
        duration_s=outcome.duration_s,
        was_run=outcome.was_run,
        resident_bytes=_resident_bytes(),
    )


def _as_json(result: object) -> bytes | None:
    if result is None:
        return None
    try:
        encoded = msgspec.json.encode(result)
    except Exception:  # noqa: BLE001  (a result of any type, with code of its own)
        return None
    return encoded if len(encoded) <= RESULT_BYTES_MAX else None


def _said(error: BaseException) -> str:
    try:
        return storable(str(error))
    except Exception:  # noqa: BLE001  (the user's exception class)
        return "<it has no text>"


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: BLE001  (nobody reads it any more, or the job has put something else there)
            continue


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


if __name__ == "__main__":
    main()
