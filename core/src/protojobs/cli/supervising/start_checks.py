"""Checks before a worker starts: can the store be shared by processes, and does somebody work every queue?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from protojobs.cli.session import Session
from protojobs.doctor.wording import counted, listed, named, typed
from protojobs.errors import NotSupported, closest
from protojobs.names import served_queue
from protojobs.port.records import QueueInfo
from protojobs.queue.queue import JobQueue
from protojobs.worker.queue_order import QueueOrder
from protojobs.worker.reports.unserved import unserved

__all__ = ["check_shared", "of_queues"]

_TYPED_MAX = 10  # queues in a command to be copied


def check_shared(session: Session, jobs: JobQueue, *, is_several: bool) -> None:
    """Refuse workers on a store of which they would see nothing: one that each process has for itself, in several
    processes; and one that begins empty with this process, where no code of the application can push to it.
    """
    claims = jobs.driver.capabilities
    if claims.cross_process:
        return
    store = session.store_name(jobs)
    if is_several:
        raise NotSupported(
            f"{store} is seen by one process only, so several processes cannot share it.",
            mend="Start one worker alone (without --processes or a dashboard), or use a store that processes share.",
        )
    if not claims.durable and session.is_opened_here(jobs):
        raise NotSupported(
            f"{store} begins empty with this process, and no other process can push to it: there is nothing to work.",
            mend="Name the JobQueue of your code (--app shop:queue), call queue.work() in it, or use another store.",
        )


def of_queues(jobs: JobQueue, order: QueueOrder, stored: Sequence[QueueInfo]) -> Iterator[str]:
    """What looks like a mistake about the queues: one that is misspelt, and those with due jobs that nobody serves."""
    default = jobs.settings.default_queue
    known = {jobs.registry.get(name).options.queue or default for name in jobs.registry}
    known |= {default, *(info.name for info in stored)}
    for entry in map(served_queue, order.told):
        name = entry.name
        if name in known or entry.is_wildcard or name.isdigit():
            continue
        if meant := closest(name, known.difference(order.names)):
            yield f"queue {named(name)} has no jobs, and none of yours names it; did you mean {named(meant)}?"
    workers, now = jobs.driver.workers(), jobs.driver.now()
    left = [info for info in unserved(stored, workers, now) if not order.serves(info.name)]
    if left:
        names = [info.name for info in left]
        number = sum(info.stats.pending - info.stats.scheduled for info in left)
        due = counted(number, "due job") + (" or more" if any(info.stats.is_estimate for info in left) else "")
        yield f"no worker serves {listed(names)} ({due}); start one: {typed('worker', *names[:_TYPED_MAX])}"
