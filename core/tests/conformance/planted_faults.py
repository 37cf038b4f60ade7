"""SQLite drivers with a fault that only shows when a process dies or freezes; `planted+<fault>://path` names them."""

from __future__ import annotations

import fcntl

from msgspec.structs import replace

from protojobs.clock import SYSTEM_CLOCK
from protojobs.errors import StoreUnavailable
from protojobs_sqlalchemy import SQLAlchemyDriver


class Sound(SQLAlchemyDriver):
    """Nothing is wrong with it."""


class AnswersEarly(SQLAlchemyDriver):
    """Says `stored` of a batch, and stores it with the next one."""

    _kept = ()

    def enqueue(self, jobs):
        answers = super().enqueue(jobs) if len(jobs) == 1 else super().enqueue([])
        if self._kept:
            super().enqueue(self._kept)
        self._kept = jobs
        return answers or [type("Answer", (), {"id": job.id, "duplicate_of": None})() for job in jobs]


class StoresInPieces(SQLAlchemyDriver):
    """A batch is several transactions, with enough time between them for a kill."""

    def enqueue(self, jobs):
        answers = []
        for job in jobs:
            answers += super().enqueue([job])
            SYSTEM_CLOCK.sleep(0.03)
        return answers


class KnowsNoFence(SQLAlchemyDriver):
    """Takes every result for the current claim's."""

    def settle(self, settlements):
        jobs = {job.id: job for job in self.get([each.id for each in settlements])}
        return super().settle(
            [
                replace(each, claim_seq=jobs[each.id].claim_seq, reserved_by=jobs[each.id].reserved_by)
                for each in settlements
            ]
        )


class RevivesLeases(SQLAlchemyDriver):
    """A heartbeat of the dead makes them alive."""

    def heartbeat(self, worker, progress):
        if worker not in [row.id for row in self.workers()]:
            rows = super().workers()
            self.register(replace(rows[0], id=worker))
        return super().heartbeat(worker, progress)


class OneProcess(SQLAlchemyDriver):
    """Nothing is wrong with it: one process has the file, as it says, and each other one is refused it."""

    _turns = {}

    def __init__(self, url, **options):
        super().__init__(url, **options)
        self.capabilities = replace(self.capabilities, cross_process=False)

    def stats(self, queue=None, **bound):
        self._take()
        return super().stats(queue, **bound)

    def enqueue(self, jobs):
        self._take()
        return super().enqueue(jobs)

    def _take(self):
        path = f"{self.engine.url.database}.turn"
        if path not in self._turns:
            turn = open(path, "w")
            try:
                fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                turn.close()
                raise self.refusal("another process has the file") from error
            self._turns[path] = turn

    refusal = StoreUnavailable


class OneProcessAndBlunt(OneProcess):
    """As the one before it, but what it raises is not ours."""

    refusal = RuntimeError


class BreaksWhenCut(SQLAlchemyDriver):
    """Lets an error of its own out when a connection is gone."""

    _closed = 0

    def close(self):
        self._closed += 1
        super().close()

    def enqueue(self, jobs):
        if self._closed > 1:
            raise RuntimeError("the socket is gone")
        return super().enqueue(jobs)


FAULTS = {name: each for name, each in globals().items() if isinstance(each, type) and each.__module__ == __name__}


def make(url, **options):
    scheme, _, path = url.partition("://")
    return FAULTS[scheme.partition("+")[2]](f"sqlite:///{path}", **options)
