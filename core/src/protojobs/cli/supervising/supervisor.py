"""`protojobs worker --processes N`: keeps N ordinary workers running, each a fresh interpreter in a session of its own.

A worker that dies is started again after a growing pause, and so is one that hangs as it starts or ends: it is killed.
One that ended by --stop-when-empty, --max-jobs or --max-time is not; when all have ended so, the supervisor ends. A
worker that falls silent, since a call in C keeps its interpreter's lock, has its lease renewed from here until its runs
must have ended; then it is killed. A worker's own session keeps the terminal's Ctrl-C from it, which it would otherwise
get twice: from the terminal, and from here.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable

from protojobs.cli.exits import CommandFailed, Exit
from protojobs.cli.supervising.substitute_heartbeats import StandIn
from protojobs.cli.supervising.worker_process import SupervisedProcess
from protojobs.clock import Clock
from protojobs.entropy import jittered
from protojobs.stopping import StopToken
from protojobs.worker.outcome import WorkReport

__all__ = ["Crew"]

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


class Place:
    """One of the N: the process that is there now, if any, and how its predecessors fared."""

    def __init__(self) -> None:
        self.process: SupervisedProcess | None = None
        self.begins_s = 0.0
        self.deaths = 0
        self.is_closed = False


class Crew:
    """The workers and the rules by which they are kept. `grace_s` and `exit_bound_s` are theirs.

    `beat` renews the lease of the worker that it is given.
    """

    def __init__(
        self,
        command: list[str],
        size: int,
        *,
        grace_s: float,
        exit_bound_s: float,
        clock: Clock,
        beat: Callable[[str], object],
    ) -> None:
        self._command = command
        self._clock = clock
        self._places = [Place() for _ in range(size)]
        self._stop_s = (0.0, grace_s + exit_bound_s + MARGIN_S, exit_bound_s + MARGIN_S)  # by level
        self._exit_bound_s = exit_bound_s
        self._stand_in = StandIn(beat, clock)
        self.looked_at = clock.monotonic()  # after its workers, last
        self._level = 0
        self._kill_at = float("inf")
        self._failed_starts = 0
        self._is_unclean = False
        self._reports: list[WorkReport] = []

    def run(self, stop: StopToken) -> tuple[WorkReport, Exit]:
        """Keep them running until `stop`, or until all have ended for good. Answers the sum of their reports.

        The exit code is BAD when one had to be killed, or ended badly while it was to stop. Raises CommandFailed, with
        all of them stopped, when no worker can be started.
        """
        try:
            self._until_over(stop)
        except CommandFailed:
            stop.stop(1)
            self._until_over(stop)
            raise
        finally:  # whatever happened here: they notice, and stop
            for process in self._processes():
                process.hang_up()
            self._stand_in.close()
        counts = {name: sum(getattr(one, name) for one in self._reports) for name in ("done", "failed", "runs", "late")}
        last = self._reports[-1].reason if self._reports else "stopped"
        report = WorkReport(**counts, reason="stopped" if self._level else last)
        return report, Exit.BAD if self._is_unclean else Exit.OK

    @property
    def processes(self) -> list[SupervisedProcess | None]:
        """Those of the places that are to be filled; None where the next one is still to be started.

        Of one that has reported nothing more is to be heard; where none is to follow it, it is left out.
        """
        found: list[SupervisedProcess | None] = []
        for process in [place.process for place in self._places if not place.is_closed]:
            if process is None or process.report is None:
                found.append(process)
            elif not self._level and not _is_for_good(process):
                found.append(None)
        return found

    def _processes(self) -> list[SupervisedProcess]:
        return [place.process for place in self._places if place.process is not None]

    def _until_over(self, stop: StopToken) -> None:
        while True:
            now = self._clock.monotonic()
            if stop.level > self._level:
                self._pass_on(stop.level, now)
            for place in self._places:
                self._look_at(place, now)
            passed_s, self.looked_at = min(now - self.looked_at, PASSED_MAX_S), now
            self._end_stuck(passed_s)
            self._listen_for_silence(passed_s)
            if now >= self._kill_at and not self._kill(now):
                return
            if not self._processes() and (self._level or all(place.is_closed for place in self._places)):
                return
            self._clock.sleep(LOOK_S)

    def _look_at(self, place: Place, now: float) -> None:
        if place.process is None:
            if not place.is_closed and not self._level and now >= place.begins_s:
                self._start(place, now)
        elif place.process.has_ended():
            process, place.process = place.process, None
            process.hang_up()
            if process.report is not None:
                self._reports.append(process.report)
            if self._level:
                # Before it has begun, and once it is done, a worker does not catch the signal; it runs nothing then.
                is_idle = not process.is_ready or process.report is not None
                is_clean = process.code == 0 or (is_idle and process.code == -signal.SIGTERM)
                self._is_unclean = self._is_unclean or not is_clean
                _log.log(logging.INFO if is_clean else logging.WARNING, "worker %s", process.how_it_ended())
            else:
                self._succeed(place, process, now)
        elif place.process.is_ready:
            self._failed_starts = 0

    def _end_stuck(self, passed_s: float) -> None:
        """End those that hang before they have begun, or after they have reported: they hold no jobs."""
        for process in self._processes():
            if process.is_stuck(passed_s, START_MAX_S, self._exit_bound_s + MARGIN_S):
                is_over = process.report is not None
                self._is_unclean = self._is_unclean or is_over
                what = "has done its work and does not end" if is_over else "has not begun"
                _log.error("worker %d %s after %.0f s: killed", process.pid, what, process.stuck_s)
                process.kill()

    def _listen_for_silence(self, passed_s: float) -> None:
        """Have the stand-in beat for those that have fallen silent, and end those whom that no longer helps."""
        silent: dict[str, float] = {}
        for process in self._processes():
            if (alive := process.alive) is None or not process.stays_silent(passed_s):
                continue
            max_s = process.silent_s_max(self._exit_bound_s)
            if process.silent_s > max_s:
                _log.error("worker %d is silent for longer than any of its runs may take: killed", process.pid)
                process.kill()
                continue
            if not process.is_helped:
                process.is_helped = True
                until = "without end" if max_s == float("inf") else f"for up to {max_s - process.silent_s:.1f} s"
                _log.warning("worker %d gives no sign of life; its lease is renewed for it %s", process.pid, until)
            silent[alive.worker] = alive.lease_s
        self._stand_in.beat_for(silent)

    def _start(self, place: Place, now: float) -> None:
        try:
            place.process = SupervisedProcess(self._command, now)
        except OSError as error:  # no memory, too many processes: that may pass
            self._later(place, now, f"could not be started: {error}")
        else:
            _log.info("worker %d starting", place.process.pid)

    def _succeed(self, place: Place, process: SupervisedProcess, now: float) -> None:
        """Decide what follows a worker that ended by itself."""
        if _is_for_good(process):
            place.is_closed = True
            _log.info("worker %s", process.how_it_ended())
            return
        has_settled = now - process.began_s >= SETTLED_S
        if has_settled:
            place.deaths = 0
        if not process.is_ready and not process.is_killed and not any(other.is_ready for other in self._processes()):
            self._give_up_on(process.code)
        if process.code == 0 and process.report is not None and (has_settled or process.report.runs):
            place.begins_s = now  # past its memory limit, or told to stop by somebody: nothing is wrong
            _log.info("worker %s; another starts", process.how_it_ended())
        else:
            self._later(place, now, process.how_it_ended())

    def _give_up_on(self, code: int) -> None:
        """Raise if starting workers is of no use, now that one ended before it was ready and no other is."""
        if code in _NO_USE:
            raise CommandFailed(Exit(code), "No worker can start, for the reason above. The supervisor ends.")
        if code != Exit.UNREACHABLE:  # an outage is sat out
            self._failed_starts += 1
        if self._failed_starts >= STARTS_MAX:
            raise CommandFailed(Exit.BAD, f"{STARTS_MAX} workers in a row ended as they started. The supervisor ends.")

    def _later(self, place: Place, now: float, what: str) -> None:
        pause = min(jittered(PAUSE_MIN_S * 2.0 ** min(place.deaths, 10)), PAUSE_MAX_S)
        place.deaths += 1
        place.begins_s = now + max(pause, PAUSE_MIN_S)
        _log.warning("worker %s; another starts in %.1f s", what, place.begins_s - now)

    def _pass_on(self, level: int, now: float) -> None:
        self._level = level
        self._kill_at = min(self._kill_at, now + self._stop_s[level])
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


def _is_for_good(process: SupervisedProcess) -> bool:
    """Whether it has said so, and ends well, or had to be killed after that."""
    is_well = process.code == 0 or process.is_killed
    return is_well and process.report is not None and process.report.reason in _FOR_GOOD
