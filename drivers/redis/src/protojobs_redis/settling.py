"""Settlements on their way into the store: those that just say "it is done", and all others."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from protojobs.entropy import fresh_id
from protojobs.errors import OptionInvalid, shown
from protojobs.port.lifecycle import Verb
from protojobs.port.records import Settlement
from protojobs_redis.packing import Answered, due_of

__all__ = ["Said", "in_order", "sorted_out"]

_SETTLING = frozenset({Verb.COMPLETE, Verb.RETRY, Verb.FAIL, Verb.SNOOZE, Verb.RELEASE, Verb.CANCEL})
_COMPLETE = Verb.COMPLETE


class Said(Struct):
    """The settlements of one call. Where there are no others, the completions are in the order of the call."""

    holder: str  # of all the completions
    completed: list[str | int]  # of each its id and its claim_seq
    others: list[tuple[object, ...]]  # as scripts/settling.lua reads them
    is_completed: Sequence[bool] = ()  # of each settlement, in the order of the call; if there are others


def sorted_out(settlements: Sequence[Settlement]) -> Said:
    """What is said, in the form that costs least."""
    holder = settlements[0].reserved_by if settlements else ""
    completed: list[str | int] = []
    for said in settlements:
        if said.verb is not _COMPLETE or said.reserved_by != holder or said.counts_crash or said.reason:  # a rare one
            return _apart(settlements, holder)
        completed += (said.id, said.claim_seq)
    return Said(holder, completed, [])


def _apart(settlements: Sequence[Settlement], holder: str) -> Said:
    """Completions first, then the others; but one after the other where a job comes twice, as its first one counts."""
    is_unlike = len({said.id for said in settlements}) == len(settlements)
    is_completed = [is_unlike and _is_plain(said, holder) for said in settlements]
    completed: list[str | int] = []
    others: list[tuple[object, ...]] = []
    for said, is_plain in zip(settlements, is_completed, strict=True):
        if is_plain:
            completed += (said.id, said.claim_seq)
        else:
            others.append(_other(said))
    return Said(holder, completed, others, is_completed)


def in_order(said: Said, completed: Sequence[Answered], others: Sequence[Answered]) -> list[Answered]:
    """The answers, in the order of the settlements."""
    done, rest = iter(completed), iter(others)
    return [next(done if is_completed else rest) for is_completed in said.is_completed]


def _is_plain(said: Settlement, holder: str) -> bool:
    return said.verb is Verb.COMPLETE and said.reserved_by == holder and not said.counts_crash and not said.reason


def _other(said: Settlement) -> tuple[object, ...]:
    """As scripts/settling.lua reads it. The id of a row in failed_jobs is made here, as all ids are."""
    if said.verb not in _SETTLING:
        raise OptionInvalid(f"{shown(said.verb)} does not settle a claim.", mend="Use one of the six that do.")
    return (
        said.id,
        said.claim_seq,
        said.reserved_by,
        said.verb.value,
        due_of(said),
        said.error,
        said.reason,
        said.counts_return,
        said.counts_crash,
        fresh_id() if said.verb is Verb.FAIL else "",
        said.fingerprint,
    )
