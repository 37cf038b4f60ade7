"""From enqueue to settle: jobs are stored, claimed by workers, and settled. Each is one script.

A worker's turn, settlements and a claim together, is the script `turn`, or `turn_any` where settlements are among them
that are not plain completions.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.msgpack import Decoder

from protojobs.entropy import fresh_id
from protojobs.errors import OptionInvalid
from protojobs.port.records import BATCH_BYTES_MAX, ClaimedJob, ClaimReply, Enqueued, Fence, NewJob, Settled, Settlement
from protojobs.port.rules import check_batch
from protojobs.port.unreadable_rows import set_aside
from protojobs_redis.inspection import entries_of
from protojobs_redis.leases import lease_lost
from protojobs_redis.packing import (
    SPOILT,
    PackedClaim,
    PackedSettled,
    Time,
    blob_of,
    claimed,
    claims_of,
    encode,
    held_by,
    pushed,
    texts,
)
from protojobs_redis.runner import ScriptRunner
from protojobs_redis.settling import in_order, pack_settlements

__all__ = ["claim", "enqueue", "held", "settle", "take_turn"]


class _Turn(Struct, array_like=True, gc=False):
    is_lease_lost: bool
    completed: list[PackedSettled]
    others: list[PackedSettled]
    spoilt: list[tuple[str, str, int]]  # what lanes hold and is no job that could be claimed: id, queue, priority
    now: Time


_turns, _claims, _ids = Decoder(_Turn), Decoder(list[PackedClaim]), Decoder(list[str])
_LENGTH_BYTES = 4
_NO_JOB = "The stored row cannot be read: it is not what a driver of protojobs writes."


def enqueue(scripts: ScriptRunner, jobs: Sequence[NewJob]) -> list[Enqueued]:
    """Store the jobs whose ids are not known yet."""
    check_batch(jobs)
    if not jobs:
        return []
    rows: list[object] = []
    size = 0
    for job in jobs:
        row = pushed(job)
        rows += row
        size += row[4]
    if size > BATCH_BYTES_MAX:
        raise OptionInvalid(f"{size} payload bytes are too many.", mend=f"Send at most {BATCH_BYTES_MAX}.")
    letters = scripts.letters("enqueue", encode(rows), *map(blob_of, jobs))
    return [
        Enqueued(id=job.id, duplicate_of=job.id if letter == "d" else None)
        for job, letter in zip(jobs, letters, strict=True)
    ]


def claim(scripts: ScriptRunner, worker: str, queues: Sequence[str], slots: int, limit: int) -> list[ClaimedJob]:
    """Claim due jobs for a worker whose lease stands; LeaseLost if it does not."""
    turn = take_turn(scripts, (), worker, queues, slots, max(1, limit))
    if turn.lease_lost:
        raise lease_lost(worker)
    return list(turn.claimed)


def settle(scripts: ScriptRunner, settlements: Sequence[Settlement]) -> list[Settled]:
    """Apply each settlement whose claim is the job's current one."""
    if not settlements:
        return []
    return list(take_turn(scripts, settlements, "", (), 0, 0).settled)


def take_turn(
    scripts: ScriptRunner, settlements: Sequence[Settlement], worker: str, queues: Sequence[str], slots: int, limit: int
) -> ClaimReply:
    """Settle, and claim up to `limit` jobs if the worker's lease stands."""
    packed = pack_settlements(settlements)
    reply = scripts.packed(
        "turn_any" if packed.others else "turn",
        packed.holder,
        encode(packed.completed),
        encode(packed.others),
        worker,
        texts(dict.fromkeys(queues)),
        slots,
        limit,
        *packed.blobs,
        is_kept=bool(settlements),
    )
    ends = _LENGTH_BYTES + int.from_bytes(reply[:_LENGTH_BYTES])
    with scripts.connections.translating():
        turn = _turns.decode(reply[_LENGTH_BYTES:ends])
    try:
        claims: Sequence[ClaimedJob] = claims_of(_claims.decode(memoryview(reply)[ends:]))
    except SPOILT:
        claims = held(scripts, worker, since=turn.now)
    if turn.spoilt:
        _set_aside(scripts, turn.spoilt)
    settled = in_order(packed, turn.completed, turn.others) if packed.others else turn.completed
    return ClaimReply(
        settled=tuple([Settled(*each) for each in settled]),
        claimed=tuple(claims),
        lease_lost=turn.is_lease_lost,
    )


def held(scripts: ScriptRunner, worker: str, *, since: Time | None = None) -> list[ClaimedJob]:
    """The jobs that the worker holds, or only those that it claimed at that moment.

    Those whose rows cannot be read are settled as failed.
    """
    jobs: list[ClaimedJob] = []
    unreadable: list[Settlement] = []
    ids = scripts.decoded(_ids, "held", worker)
    for entry in entries_of(scripts, ids):
        holder, claimed_at, claim_seq = held_by(entry)
        if holder == worker and since in (None, claimed_at):
            job = claimed(entry)
            if isinstance(job, ClaimedJob):
                jobs.append(job)
            else:
                claim = Fence(id=entry.id, claim_seq=claim_seq, reserved_by=worker)
                unreadable.append(set_aside(claim, job))
    settle(scripts, unreadable)
    return jobs


def _set_aside(scripts: ScriptRunner, spoilt: Sequence[tuple[str, str, int]]) -> None:
    """Leave failed jobs in place of those whose rows cannot be read."""
    why = set_aside(Fence(id="", claim_seq=0, reserved_by=""), _NO_JOB).error
    scripts.run("set_aside", encode([(*lane_entry, fresh_id(), why) for lane_entry in spoilt]))
