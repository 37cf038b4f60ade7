"""Settlements packed for the scripts: plain completions, which nearly all are, and the others."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from protojobs.entropy import fresh_id
from protojobs.port.lifecycle import Verb
from protojobs.port.records import Settlement
from protojobs.port.rules import carries, check_batch, check_settlements
from protojobs_redis.packing import PackedSettled, blob_of, due_of, pushed

__all__ = ["PackedSettlements", "in_order", "pack_settlements"]

_COMPLETE = Verb.COMPLETE


class PackedSettlements(Struct):
    """The settlements of one call. Where there are no others, the completions are in the order of the call."""

    holder: str  # of all the completions
    completed: list[str | int]  # of each its id and its claim_seq
    others: list[tuple[object, ...]]  # as scripts/settling.lua reads them
    is_completed: Sequence[bool] = ()  # of each settlement, in the order of the call; if there are others
    blobs: Sequence[bytes] = ()  # of the jobs that come next, one after the other


def pack_settlements(settlements: Sequence[Settlement]) -> PackedSettlements:
    """The settlements in the form that costs least."""
    check_batch(settlements)
    holder = settlements[0].reserved_by if settlements else ""
    completed: list[str | int] = []
    for each in settlements:
        if each.verb is not _COMPLETE or each.reserved_by != holder or each.counts_crash or each.reason:  # a rare one
            return _pack_apart(settlements, holder)
        if each.result is not None or each.then:  # as `carries` has it, and a call of it for each job would cost more
            return _pack_apart(settlements, holder)
        completed += (each.id, each.claim_seq)
    return PackedSettlements(holder, completed, [])


def _pack_apart(settlements: Sequence[Settlement], holder: str) -> PackedSettlements:
    """Completions first, then the others; but one after the other where a job comes twice, as its first one counts."""
    check_settlements(settlements)
    is_unlike = len({each.id for each in settlements}) == len(settlements)
    is_completed = [is_unlike and _is_plain(each, holder) for each in settlements]
    completed: list[str | int] = []
    others: list[tuple[object, ...]] = []
    for each, is_plain in zip(settlements, is_completed, strict=True):
        if is_plain:
            completed += (each.id, each.claim_seq)
        else:
            others.append(_other(each))
    blobs = [blob_of(job) for each in settlements for job in each.then]
    return PackedSettlements(holder, completed, others, is_completed, blobs)


def in_order(
    packed: PackedSettlements, completed: Sequence[PackedSettled], others: Sequence[PackedSettled]
) -> list[PackedSettled]:
    """What became of the settlements, in their order."""
    done, rest = iter(completed), iter(others)
    return [next(done if is_completed else rest) for is_completed in packed.is_completed]


def _is_plain(settlement: Settlement, holder: str) -> bool:
    is_complete = settlement.verb is _COMPLETE and settlement.reserved_by == holder
    return is_complete and not settlement.counts_crash and not settlement.reason and not carries(settlement)


def _other(settlement: Settlement) -> tuple[object, ...]:
    """As scripts/settling.lua reads it. The id of a row in failed_jobs is made here, as all ids are."""
    carried = (settlement.result, [value for job in settlement.then for value in pushed(job)])
    return (
        settlement.id,
        settlement.claim_seq,
        settlement.reserved_by,
        settlement.verb.value,
        due_of(settlement),
        settlement.error,
        settlement.reason,
        settlement.counts_return,
        settlement.counts_crash,
        fresh_id() if settlement.verb is Verb.FAIL else "",
        settlement.fingerprint,
        *(carried if carries(settlement) else ()),
    )
