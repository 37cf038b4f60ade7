"""The life of a job: its states, and the only table of moves between them.

Two rules hold everywhere. A job changes state only by a verb of this table; every other pair (state, verb) is refused.
And a job leaves `processing` only by its claim: (id, claim_seq, reserved_by), all three, so that a worker which lost
its lease can no longer decide anything. The diagram in the docs is drawn from `TRANSITIONS` by `diagram()`; the
conformance kit walks every state with every verb.

*Scheduled* and *retrying* are not states: the first is pending with `available_at` ahead, the second is pending with
attempts behind it.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = [
    "CRASHES_MAX",
    "FINISHED",
    "RETURNS_FREE",
    "STORED",
    "SUSPECT_RECLAIMS",
    "TRANSITIONS",
    "JobState",
    "Verb",
    "diagram",
]

RETURNS_FREE = 20  # returns that give the attempt back; each further one spends it. Workers count no stop beyond it
SUSPECT_RECLAIMS = 2  # from this reclaim on a job is a suspect: it runs where its death hurts nobody else
CRASHES_MAX = 3  # a suspect that took its process down this often is settled as failed, unrun


class JobState(StrEnum):
    """Where a job is."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    MOVING = "moving"  # being exported to another store; nobody may claim, clear or prune it
    UNREADABLE = "unreadable"  # never stored: what looking verbs show where a foreign hand wrote some other state


class Verb(StrEnum):
    """What can happen to a job. The first six settle a claim; the others come from outside the run."""

    COMPLETE = "complete"
    RETRY = "retry"  # run again, the attempt is spent
    FAIL = "fail"  # given up: into failed_jobs
    SNOOZE = "snooze"  # run again later, the attempt is given back
    RELEASE = "release"  # returned unrun or cut short, the attempt is given back
    CANCEL = "cancel"  # settled as cancelled by the worker, or cancelled by a person

    CLAIM = "claim"
    RECLAIM = "reclaim"  # the worker's lease ended
    RETRY_FAILED = "retry_failed"
    FORGET = "forget"  # a failed job and its failed_jobs row are deleted
    CLEAR = "clear"
    PRUNE = "prune"
    EXPORT = "export"
    DROP_EXPORTED = "drop_exported"


FINISHED = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})
STORED = tuple(state for state in JobState if state is not JobState.UNREADABLE)  # what a job can be brought to

_PENDING, _PROCESSING, _MOVING = JobState.PENDING, JobState.PROCESSING, JobState.MOVING
_COMPLETED, _FAILED, _CANCELLED = JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED

# (state, verb) -> the states it may lead to; `None` means that the job is gone. On a job with a cancel mark retry,
# fail, snooze, release and reclaim lead to cancelled: the person's wish outlives the run. `complete` stays completed,
# since the work was done.
TRANSITIONS: dict[tuple[JobState, Verb], tuple[JobState | None, ...]] = {
    (_PENDING, Verb.CLAIM): (_PROCESSING,),
    (_PENDING, Verb.CANCEL): (_CANCELLED,),
    (_PENDING, Verb.CLEAR): (None,),
    (_PENDING, Verb.EXPORT): (_MOVING,),
    (_PROCESSING, Verb.COMPLETE): (_COMPLETED,),
    (_PROCESSING, Verb.RETRY): (_PENDING, _CANCELLED),
    (_PROCESSING, Verb.FAIL): (_FAILED, _CANCELLED),
    (_PROCESSING, Verb.SNOOZE): (_PENDING, _CANCELLED),
    (_PROCESSING, Verb.RELEASE): (_PENDING, _CANCELLED),
    # by the worker that holds it: at once; by a person: a mark, the state stays
    (_PROCESSING, Verb.CANCEL): (_CANCELLED, _PROCESSING),
    (_PROCESSING, Verb.RECLAIM): (_PENDING, _CANCELLED),
    (_COMPLETED, Verb.CLEAR): (None,),
    (_COMPLETED, Verb.PRUNE): (None,),
    (_FAILED, Verb.RETRY_FAILED): (_PENDING,),
    (_FAILED, Verb.FORGET): (None,),
    (_FAILED, Verb.CLEAR): (None,),
    (_FAILED, Verb.PRUNE): (None,),
    (_FAILED, Verb.EXPORT): (_MOVING,),
    (_CANCELLED, Verb.CLEAR): (None,),
    (_CANCELLED, Verb.PRUNE): (None,),
    (_MOVING, Verb.DROP_EXPORTED): (None,),
    (JobState.UNREADABLE, Verb.CANCEL): (_CANCELLED,),
}


def diagram() -> str:
    """The table as a Mermaid state diagram, for the docs."""
    lines = ["stateDiagram-v2", "    [*] --> pending : push"]
    arrows: dict[tuple[str, str], list[str]] = {}
    for (state, verb), targets in TRANSITIONS.items():
        for target in targets:
            arrows.setdefault((state.value, target.value if target else "[*]"), []).append(verb.value)
    lines += [f"    {start} --> {end} : {', '.join(verbs)}" for (start, end), verbs in arrows.items()]
    return "\n".join(lines) + "\n"
