"""The supervisor of `protojobs worker --processes N`: it keeps N worker processes running, and restarts what dies.

A worker that dies is started again after a growing pause. One that hangs as it starts or ends is killed, and started
again likewise. One that ended by --stop-when-empty, --max-jobs or --max-time is not; when all have ended so, the
supervisor ends. A worker falls silent when a call in C keeps its interpreter's lock: then the supervisor renews its
lease until its runs must have ended, and after that kills it. Each worker is a fresh interpreter in a session of its
own, which keeps the terminal's Ctrl-C from it: otherwise it would get it twice, from the terminal and from here.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable

from protojobs.cli.exits import CommandFailed, Exit
from protojobs.cli.supervising.substitute_heartbeats import SubstituteHeartbeats
from protojobs.cli.supervising.worker_process import WorkerProcess
from protojobs.clock import Clock
from protojobs.entropy import jittered
from protojobs.stopping import StopToken
from protojobs.worker.outcome import WorkReport

__all__ = ["Supervisor"]

LOOK_S = 0.1  # between two looks at the processes
PAUSE_MIN_S, PAUSE_MAX_S = 0.5, 30.0
SETTLED_S = 60.0  # a worker that lived so long starts anew with the shortest pause
STARTS_MAX = 5  # so many in a row that never became ready, with no other that is: it is no accident
PASSED_MAX_S = 1.0  # counted as silence between two looks: more, and it was the supervisor that did not get to run
START_MAX_S = 300.0  # from its start to its first sign of life: an application may load large models on import
MARGIN_S = 5.0  # beyond what a worker may take to stop, before it is killed; and for the killed to be gone

_FOR_GOOD = ("empty", "max_jobs", "max_time")
_NO_USE = (Exit.USAGE, Exit.NOT_SUPPORTED, Exit.NOT_MIGRATED)  # another start ends the same way
_log = logging.getLogger("protojobs.cli")


class ManagedWorker:
    """One of the N workers: its present process, if any, and how many before that died in a row."""

    def __init__(self) -> None:
        self.process: WorkerProcess | None = None
        self.starts_at = 0.0
        self.deaths = 0
        self.is_finished = False


class Supervisor:
    """Starts `count` workers by `command`, and keeps them running. `grace_s` and `exit_bound_s` are theirs.

    `heartbeat` renews the lease of the worker whose id it is given.
    """

    def __init__(
        self,
        command: list[str],
        count: int,
        *,
        grace_s: float,
        exit_bound_s: float,
        clock: Clock,
        heartbeat: Callable[[str], object],
    ) -> None:
        self._command = command
        self._clock = clock
        self._workers = [ManagedWorker() for _ in range(count)]
        self._stop_max_s = (0.0, grace_s + exit_bound_s + MARGIN_S, exit_bound_s + MARGIN_S)  # by level
        self._exit_bound_s = exit_bound_s
        self._heartbeats = SubstituteHeartbeats(heartbeat, clock)
        self.looked_at = clock.monotonic()  # when it last looked after its workers
        self._level = 0
        self._kill_at = float("inf")
        self._failed_starts = 0
        self._is_unclean = False
        self._reports: list[WorkReport] = []

    def run(self, stop: StopToken) -> tuple[WorkReport, Exit]:
        """Keep them running until `stop`, or until all have ended for good. Returns the sum of their reports.

        The exit code is BAD when one had to be killed, or ended badly while it was to stop. Raises CommandFailed, with
        all of them stopped, when no worker can be started.
        """
        try:
            self._run_until_ended(stop)
        except CommandFailed:
            stop.stop(1)
            self._run_until_ended(stop)
            raise
        finally:  # whatever happened here: they notice, and stop
            for process in self._processes():
                process.disconnect()
            self._heartbeats.close()
        counts = {name: sum(getattr(one, name) for one in self._reports) for name in ("done", "failed", "runs", "late")}
        last = self._reports[-1].reason if self._reports else "stopped"
        report = WorkReport(**counts, reason="stopped" if self._level else last)
        return report, Exit.BAD if self._is_unclean else Exit.OK

    @property
    def processes(self) -> list[WorkerProcess | None]:
        """The processes of the workers that are to run; None for one that is still to be started.

        A process that has reported is as good as gone: None stands for the one that follows, if one is to follow.
        """
        processes: list[WorkerProcess | None] = []
        for process in [worker.process for worker in self._workers if not worker.is_finished]:
            if process is None or process.report is None:
                processes.append(process)
            elif not self._level and not _is_for_good(process):
                processes.append(None)
        return processes

    def _processes(self) -> list[WorkerProcess]:
        return [worker.process for worker in self._workers if worker.process is not None]

    def _run_until_ended(self, stop: StopToken) -> None:
        while True:
            now = self._clock.monotonic()
            if stop.level > self._level:
                self._pass_on_stop(stop.level, now)
            for worker in self._workers:
                self._check(worker, now)
            passed_s, self.looked_at = min(now - self.looked_at, PASSED_MAX_S), now
            self._kill_stuck(passed_s)
            self._help_silent(passed_s)
            if now >= self._kill_at and not self._kill(now):
                return
            if not self._processes() and (self._level or all(worker.is_finished for worker in self._workers)):
                return
            self._clock.sleep(LOOK_S)

    def _check(self, worker: ManagedWorker, now: float) -> None:
        if worker.process is None:
            if not worker.is_finished and not self._level and now >= worker.starts_at:
                self._start(worker, now)
        elif worker.process.has_ended():
            process, worker.process = worker.process, None
            process.disconnect()
            if process.report is not None:
                self._reports.append(process.report)
            if self._level:
                # Before it has begun, and once it is done, a worker does not catch the signal; it runs nothing then.
                is_idle = not process.is_ready or process.report is not None
                is_clean = process.code == 0 or (is_idle and process.code == -signal.SIGTERM)
                self._is_unclean = self._is_unclean or not is_clean
                _log.log(logging.INFO if is_clean else logging.WARNING, "worker %s", process.how_it_ended())
            else:
                self._follow(worker, process, now)
        elif worker.process.is_ready:
            self._failed_starts = 0

    def _kill_stuck(self, passed_s: float) -> None:
        """Kill those that hang before they have begun, or after they have reported: they hold no jobs."""
        for process in self._processes():
            if process.is_stuck(passed_s, START_MAX_S, self._exit_bound_s + MARGIN_S):
                is_over = process.report is not None
                self._is_unclean = self._is_unclean or is_over
                what = "has done its work and does not end" if is_over else "has not begun"
                _log.error("worker %d %s after %.0f s: killed", process.pid, what, process.stuck_s)
                process.kill()

    def _help_silent(self, passed_s: float) -> None:
        """Have heartbeats made for those that are silent, and kill those that are silent for too long."""
        silent: dict[str, float] = {}
        for process in self._processes():
            if (sign := process.last_sign) is None or not process.stays_silent(passed_s):
                continue
            max_s = process.silent_s_max(self._exit_bound_s)
            if process.silent_s > max_s:
                _log.error("worker %d is silent for longer than any of its runs may take: killed", process.pid)
                process.kill()
                continue
            if not process.is_lease_renewed:
                process.is_lease_renewed = True
                until = "without end" if max_s == float("inf") else f"for up to {max_s - process.silent_s:.1f} s"
                _log.warning("worker %d gives no sign of life; its lease is renewed for it %s", process.pid, until)
            silent[sign.worker] = sign.lease_s
        self._heartbeats.beat_for(silent)

    def _start(self, worker: ManagedWorker, now: float) -> None:
        try:
            worker.process = WorkerProcess(self._command, now)
        except OSError as error:  # no memory, too many processes: that may pass
            self._restart_later(worker, now, f"could not be started: {error}")
        else:
            _log.info("worker %d starting", worker.process.pid)

    def _follow(self, worker: ManagedWorker, process: WorkerProcess, now: float) -> None:
        """Decide what follows a process that ended by itself: nothing, another at once, or another after a pause."""
        if _is_for_good(process):
            worker.is_finished = True
            _log.info("worker %s", process.how_it_ended())
            return
        has_settled = now - process.started_at >= SETTLED_S
        if has_settled:
            worker.deaths = 0
        if not process.is_ready and not process.is_killed and not any(other.is_ready for other in self._processes()):
            self._give_up_on(process.code)
        if process.code == 0 and process.report is not None and (has_settled or process.report.runs):
            worker.starts_at = now  # past its memory limit, or told to stop by somebody: nothing is wrong
            _log.info("worker %s; another starts", process.how_it_ended())
        else:
            self._restart_later(worker, now, process.how_it_ended())

    def _give_up_on(self, code: int) -> None:
        """Raise if starting workers is of no use, now that one ended before it was ready and no other is."""
        if code in _NO_USE:
            raise CommandFailed(Exit(code), "No worker can start, for the reason above. The supervisor ends.")
        if code != Exit.UNREACHABLE:  # an outage is sat out
            self._failed_starts += 1
        if self._failed_starts >= STARTS_MAX:
            raise CommandFailed(Exit.BAD, f"{STARTS_MAX} workers in a row ended as they started. The supervisor ends.")

    def _restart_later(self, worker: ManagedWorker, now: float, what: str) -> None:
        pause = min(jittered(PAUSE_MIN_S * 2.0 ** min(worker.deaths, 10)), PAUSE_MAX_S)
        worker.deaths += 1
        worker.starts_at = now + max(pause, PAUSE_MIN_S)
        _log.warning("worker %s; another starts in %.1f s", what, worker.starts_at - now)

    def _pass_on_stop(self, level: int, now: float) -> None:
        self._level = level
        self._kill_at = min(self._kill_at, now + self._stop_max_s[level])
        for process in self._processes():
            process.stop(level)

    def _kill(self, now: float) -> bool:
        """Kill what is left; False once even that has had its time."""
        for process in self._processes():
            if not process.is_killed:
                self._is_unclean = True
                _log.error("worker %d has not stopped in time: killed", process.pid)
                process.kill()
        return now < self._kill_at + MARGIN_S


def _is_for_good(process: WorkerProcess) -> bool:
    """Whether it has said so, and ends well, or had to be killed after that."""
    is_well = process.code == 0 or process.is_killed
    return is_well and process.report is not None and process.report.reason in _FOR_GOOD
