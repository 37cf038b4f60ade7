"""Fires schedules on a thread of its own, beside a worker or in `protojobs scheduler`.

The thread is a daemon: nothing that it does can keep the process alive. It ends before the block that it serves is
left, unless the store keeps it waiting for longer than somebody who wants to stop would.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from protojobs.errors import ConfigurationError, JobUnknown, NotSupported, PayloadError
from protojobs.port.schedules import Schedule
from protojobs.scheduler.scheduler import Scheduler
from protojobs.stopping import StopToken, Wakeup

__all__ = ["declared", "ticking"]

JOIN_S = 2.0  # of the exit bound: a tick that waits for the store does not hold up a worker that is to end
AGAIN_S = 30.0
_log = logging.getLogger("protojobs.cli")


def declared(scheduler: Scheduler) -> Sequence[Schedule]:
    """Store what code and configuration declare. Raises ConfigurationError that names the one that is wrong."""
    try:
        return scheduler.declare()
    except (JobUnknown, PayloadError) as error:  # here it is the configuration that is wrong
        raise ConfigurationError(error.message, mend=error.mend) from error


@contextmanager
def ticking(scheduler: Scheduler, stop: StopToken) -> Generator[threading.Thread]:
    """While the block runs, and until `stop`, a thread of its own ticks. It outlives whatever goes wrong in it."""
    own = StopToken()  # the block may end without anybody having told `stop`
    ended = Wakeup()  # a second signal may strike while the first one sets it
    unsubscribe = stop.subscribe(own.stop)
    own.subscribe(lambda _level: ended.set())
    thread = threading.Thread(target=_tick, args=(scheduler, own, ended), name="protojobs-ticker", daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        unsubscribe()
        own.stop(1)
        thread.join(JOIN_S)


def _tick(scheduler: Scheduler, stop: StopToken, ended: Wakeup) -> None:
    while not ended.is_set():
        try:
            scheduler.run(stop)
        except NotSupported as error:  # it will not be another time either
            _log.error("no schedule is fired by this process: %s", error)
            return
        except BaseException as error:  # noqa: BLE001  (a plugin's sys.exit() must not end firing without a word)
            _log.error("firing schedules failed, trying again in %g s: %s", AGAIN_S, error, exc_info=error)
            ended.wait(AGAIN_S)
