"""Leases of workers: registered, renewed, given up, and the jobs of those that lapsed reclaimed. Each is one script."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct, convert
from msgspec.msgpack import Decoder
from msgspec.structs import asdict

from protojobs.errors import LeaseLost
from protojobs.port.records import Fence, Heartbeat, LostJob, Reclaimed, WorkerInfo
from protojobs_redis.packing import Entry, Time, encode, micros, moment, moment_text, record
from protojobs_redis.runner import ScriptRunner

__all__ = ["heartbeat", "leave", "lease_lost", "reclaim", "register"]

ROUND_MAX = 1_000  # jobs that one script reclaims, whatever the caller asks for


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


def register(scripts: ScriptRunner, worker: WorkerInfo) -> None:
    """Store the worker's row, with a lease that begins now."""
    info = (worker.host, worker.pid, worker.queues, worker.concurrency, micros(worker.lease_s), worker.isolates)
    scripts.run("register", worker.id, encode(info))


def heartbeat(scripts: ScriptRunner, worker: str, progress: Mapping[Fence, float]) -> Heartbeat:
    """Renew the lease, and store the progress of current claims; LeaseLost if the worker's row is gone."""
    shares = [(claim.id, claim.claim_seq, claim.reserved_by, share) for claim, share in progress.items()]
    reply = scripts.run("heartbeat", worker, encode(shares))
    if not isinstance(reply, bytes):
        raise lease_lost(worker)
    beat = _beats.decode(reply)
    return Heartbeat(
        cancels=tuple(Fence(id=id, claim_seq=seq, reserved_by=worker) for id, seq in beat.cancels),
        others_end_in=_seconds(beat.others_end_in),
        at=moment(beat.at),
    )


def leave(scripts: ScriptRunner, worker: str) -> None:
    """Delete the worker's row."""
    scripts.run("leave", worker)


def reclaim(scripts: ScriptRunner, limit: int, until: datetime | None) -> Reclaimed:
    """Delete the rows whose lease has ended, and reclaim their jobs and the orphans."""
    step = scripts.decoded(_rounds, "reclaim", max(1, min(limit, ROUND_MAX)), moment_text(until))
    return Reclaimed(
        jobs=tuple(_lost(entry, holder) for holder, entry in step.jobs),
        workers=tuple(step.workers),
        has_more=step.has_more,
        others_end_in=_seconds(step.others_end_in),
    )


def lease_lost(worker: str) -> LeaseLost:
    """What to raise when the worker's row is gone."""
    return LeaseLost(
        f"worker {worker}: its lease no longer stands; others may have its jobs.",
        mend="Drop what was not started, register under a new id, and still send late results.",
    )


def _lost(entry: Entry, holder: str) -> LostJob:
    job = record(entry)
    return convert(asdict(job) | {"state": job.status, "reserved_by": holder}, LostJob)


def _seconds(microseconds: str) -> float | None:
    return int(microseconds) / 1e6 if microseconds else None
