"""Workers come, beat, leave and are taken from. Each verb is one script, which does what its name says."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct
from msgspec.msgpack import Decoder

from protojobs.errors import LeaseLost
from protojobs.port.records import Fence, Heartbeat, LostJob, Reclaimed, WorkerInfo
from protojobs_redis.handle import Handle
from protojobs_redis.packing import Entry, Time, encode, micros, moment, moment_text, record

__all__ = ["Leases", "lease_lost"]

ROUND_MAX = 1_000  # jobs that one script takes back, whatever the caller asks for


class _Beat(Struct, array_like=True):
    cancels: list[tuple[str, int]]
    others_end_in: str
    at: Time


class _Round(Struct, array_like=True):
    jobs: list[tuple[str, Entry]]
    workers: list[str]
    has_more: bool
    others_end_in: str


_beats, _rounds = Decoder(_Beat), Decoder(_Round)


class Leases(Handle):
    """The lease verbs of `protojobs.port.driver.Driver`; their promises are written there."""

    def register(self, worker: WorkerInfo) -> None:
        """See Driver.register."""
        info = (
            worker.host,
            worker.pid,
            worker.queues,
            worker.concurrency,
            micros(worker.lease_s),
            worker.isolates,
        )
        self._run("register", worker.id, encode(info))

    def heartbeat(self, worker: str, progress: Mapping[Fence, float]) -> Heartbeat:
        """See Driver.heartbeat."""
        shares = [(claim.id, claim.claim_seq, claim.reserved_by, share) for claim, share in progress.items()]
        answer = self._run("heartbeat", worker, encode(shares))
        if not isinstance(answer, bytes):
            raise lease_lost(worker)
        beat = _beats.decode(answer)
        return Heartbeat(
            cancels=tuple(Fence(id=id, claim_seq=seq, reserved_by=worker) for id, seq in beat.cancels),
            others_end_in=_seconds(beat.others_end_in),
            at=moment(beat.at),
        )

    def leave(self, worker: str) -> None:
        """See Driver.leave."""
        self._run("leave", worker)

    def reclaim(self, limit: int, *, until: datetime | None = None) -> Reclaimed:
        """See Driver.reclaim."""
        found = self._packed(_rounds, "reclaim", max(1, min(limit, ROUND_MAX)), moment_text(until))
        return Reclaimed(
            jobs=tuple(_lost(entry, holder) for holder, entry in found.jobs),
            workers=tuple(found.workers),
            has_more=found.has_more,
            others_end_in=_seconds(found.others_end_in),
        )


def lease_lost(worker: str) -> LeaseLost:
    """What to raise when the worker's row is gone."""
    return LeaseLost(
        f"worker {worker}: its lease no longer stands; others may have its jobs.",
        mend="Drop what was not started, register under a new id, and still send late results.",
    )


def _lost(entry: Entry, holder: str) -> LostJob:
    job = record(entry)
    return LostJob(
        id=job.id,
        queue=job.queue,
        job_name=job.job_name,
        job_class=job.job_class,
        attempts=job.attempts,
        state=job.status,
        reserved_by=holder,
    )


def _seconds(microseconds: str) -> float | None:
    return int(microseconds) / 1e6 if microseconds else None
