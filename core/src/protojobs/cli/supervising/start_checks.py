"""Checks before a worker starts: can the store be shared by processes, and does somebody work every queue?"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from protojobs.cli.session import Session
from protojobs.doctor.wording import listed, named, typed
from protojobs.errors import NotSupported, closest
from protojobs.queue.queue import JobQueue

__all__ = ["check_shared", "unserved"]

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


def unserved(jobs: JobQueue, names: Sequence[str], stored: Collection[str], *, are_given: bool) -> Iterator[str]:
    """What looks like a mistake about the queues: one that is misspelt; and those that the jobs of this application
    name and no worker serves, unless the queues were given (`are_given`): then the others are somebody else's.
    """
    default = jobs.settings.default_queue
    wanted = {jobs.registry.get(name).options.queue or default for name in jobs.registry}
    for name in names:
        if name not in stored and name not in wanted and name != default and not name.isdigit():
            if meant := closest(name, {*stored, *wanted}.difference(names)):
                yield f"queue {named(name)} has no jobs, and none of yours names it; did you mean {named(meant)}?"
    missing = wanted.difference(names)
    if are_given or not missing:
        return
    now = jobs.driver.now()
    missing.difference_update(*(worker.queues for worker in jobs.driver.workers() if worker.lease_ends_at > now))
    if missing:
        left = sorted(missing)
        yield (
            f"no worker serves {listed(left)}, which your jobs name:"
            f" {typed('worker', *names, *left[:_TYPED_MAX])}, or --all-queues"
        )
