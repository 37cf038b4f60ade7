"""Scheduler: jobs at a time, and again and again. Any number of processes may tick; each due time fires once."""

from __future__ import annotations

import logging
import threading
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING

from protojobs.entropy import jittered
from protojobs.errors import ConfigurationError, PayloadError
from protojobs.hooks.dispatcher import Dispatcher
from protojobs.port.schedules import Schedule
from protojobs.queue.offload import offload
from protojobs.scheduler.registering import Scheduling, Upcoming
from protojobs.scheduler.ticking import Ticker, TickReport
from protojobs.stopping import StopToken, Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Unpack

    from protojobs.jobs.cron_option import ScheduleOptions
    from protojobs.queue.queue import JobQueue

__all__ = ["Scheduler", "TickReport", "Upcoming"]

LOOK_EVERY_S = 1.0  # at least: others may store a schedule that is due sooner
SPREAD_S = 0.05  # tickers that wait for the same time do not all ask at once
PAUSE_MAX_S = 2.0
OBSERVERS_END_S = 5.0
_log = logging.getLogger("protojobs.scheduler")


class Scheduler(Scheduling):
    """Runs jobs later, and again and again.

    Recurring schedules are stored by the driver: they outlive restarts, and any number of tickers (`run`, `tick`,
    `protojobs scheduler`, every `protojobs worker`) fires each due time exactly once. Thread-safe. Every method that
    waits for the store has a twin with an `a` in front for coroutines.
    """

    def __init__(self, queue: JobQueue) -> None:
        super().__init__(queue)
        self._ticker = Ticker(queue, lambda event: queue.hooks.notify(event))
        self._turn = threading.RLock()  # a listener may tick

    def tick(self) -> TickReport:
        """Fire everything that is due now, and say what was done. Raises what the driver raises.

        Two threads that call it take turns.
        """
        with self._turn:
            return self._tick(self._ticker, lambda: False)

    def run(self, stop: StopToken | None = None) -> None:
        """Tick whenever something is due, until `stop` is told to. An outage of the store is sat out.

        Raises ConfigurationError or PayloadError at the start, for a declared schedule that is wrong.
        """
        ended = Wakeup()  # `stop` may be told in a signal handler
        unsubscribe = (stop or StopToken()).subscribe(lambda _level: ended.set())
        dispatcher = Dispatcher(self.queue.hooks)
        ticker = Ticker(self.queue, dispatcher.send)  # its own, as others may run or tick at the same time
        pause_s, is_degraded = 0.0, False
        try:
            while not ended.is_set():
                try:
                    wait_s = _until_next(self._tick(ticker, ended.is_set))
                    if is_degraded:
                        _log.warning("the store answers again")
                    pause_s, is_degraded = 0.0, False
                except (ConfigurationError, PayloadError):  # a declaration is wrong, or the store keeps no schedules
                    raise
                except Exception as error:  # noqa: BLE001  (whatever it was, the next times are to fire)
                    if not is_degraded:
                        _log.error("ticking failed; trying again: %s", error, exc_info=error)
                    is_degraded, pause_s = True, min(2 * pause_s + 0.1, PAUSE_MAX_S)
                    wait_s = jittered(pause_s)
                ended.wait(wait_s)
        finally:
            unsubscribe()
            dispatcher.close(OBSERVERS_END_S)

    def _tick(self, ticker: Ticker, is_over: Callable[[], bool]) -> TickReport:
        if not self.has_declared:
            self.declare(skip_unknown=True)
        return ticker.tick(is_over)

    async def ain_(self, job: object, delay: float | timedelta, data: object = None) -> str:
        """`in_` for coroutines."""
        return await offload(self.in_, job, delay, data)

    async def aat(self, job: object, when: datetime | timedelta | str, data: object = None) -> str:
        """`at` for coroutines."""
        return await offload(self.at, job, when, data)

    async def aevery(
        self, job: object, interval: float | timedelta, data: object = None, **options: Unpack[ScheduleOptions]
    ) -> Schedule:
        """`every` for coroutines."""
        return await offload(lambda: self.every(job, interval, data, **options))

    async def aevery_minute(self, job: object, data: object = None, **options: Unpack[ScheduleOptions]) -> Schedule:
        """`every_minute` for coroutines."""
        return await offload(lambda: self.every_minute(job, data, **options))

    async def aevery_five_minutes(
        self, job: object, data: object = None, **options: Unpack[ScheduleOptions]
    ) -> Schedule:
        """`every_five_minutes` for coroutines."""
        return await offload(lambda: self.every_five_minutes(job, data, **options))

    async def ahourly(
        self, job: object, data: object = None, minute: int = 0, **options: Unpack[ScheduleOptions]
    ) -> Schedule:
        """`hourly` for coroutines."""
        return await offload(lambda: self.hourly(job, data, minute, **options))

    async def adaily(
        self, job: object, data: object = None, at: str | time = "00:00", **options: Unpack[ScheduleOptions]
    ) -> Schedule:
        """`daily` for coroutines."""
        return await offload(lambda: self.daily(job, data, at, **options))

    async def aweekly(
        self,
        job: object,
        data: object = None,
        day: str | int = "monday",
        at: str | time = "00:00",
        **options: Unpack[ScheduleOptions],
    ) -> Schedule:
        """`weekly` for coroutines."""
        return await offload(lambda: self.weekly(job, data, day, at, **options))

    async def acron(
        self, job: object, expression: str, data: object = None, **options: Unpack[ScheduleOptions]
    ) -> Schedule:
        """`cron` for coroutines."""
        return await offload(lambda: self.cron(job, expression, data, **options))

    async def adeclare(self, *, skip_unknown: bool = False) -> list[Schedule]:
        """`declare` for coroutines."""
        return await offload(self.declare, skip_unknown=skip_unknown)

    async def aschedules(self) -> list[Schedule]:
        """`schedules` for coroutines."""
        return await offload(self.schedules)

    async def aget(self, schedule_id: str) -> Schedule | None:
        """`get` for coroutines."""
        return await offload(self.get, schedule_id)

    async def apause(self, schedule_id: str) -> bool:
        """`pause` for coroutines."""
        return await offload(self.pause, schedule_id)

    async def aresume(self, schedule_id: str) -> bool:
        """`resume` for coroutines."""
        return await offload(self.resume, schedule_id)

    async def aremove(self, schedule_id: str) -> bool:
        """`remove` for coroutines."""
        return await offload(self.remove, schedule_id)

    async def arun_now(self, schedule_id: str) -> str:
        """`run_now` for coroutines."""
        return await offload(self.run_now, schedule_id)

    async def anext(self, n: int = 1, *, id: str | None = None) -> list[Upcoming]:
        """`next` for coroutines."""
        return await offload(lambda: self.next(n, id=id))

    async def atick(self) -> TickReport:
        """`tick` for coroutines."""
        return await offload(self.tick)


def _until_next(report: TickReport) -> float:
    """Seconds to wait after a tick."""
    due_in = LOOK_EVERY_S if report.next_due_in is None else min(report.next_due_in, LOOK_EVERY_S)
    return due_in + jittered(SPREAD_S / 2, 1.0)
