"""Reads a history and says what the promise does not allow. Empty: nothing lost, nothing doubled without reason."""

from __future__ import annotations

from itertools import pairwise

from protojobs.lifecycle import Verb

from .world import RunNote, World

ATTEMPTS_MAX = 4  # max_retries = 3 of every simulated job


def complaints(world: World) -> list[str]:
    """Each broken promise, in a sentence."""
    history, found = world.history, []
    records = {record.id: record for record in world.store.get(list(history.pushed))}
    for job_id in history.pushed:
        record = records.get(job_id)
        if record is None:
            found.append(f"{job_id} is gone")
        elif record.status not in ("completed", "failed"):
            found.append(f"{job_id} never came to an end: {record.status}")
        elif record.attempts > ATTEMPTS_MAX + (record.status == "failed"):  # one more where it was settled unrun
            found.append(f"{job_id} spent {record.attempts} attempts")
    runs: dict[str, list[RunNote]] = {}
    for note in history.runs:
        runs.setdefault(note.job.id, []).append(note)
    for job_id, notes in runs.items():
        if job_id not in history.pushed:
            found.append(f"{job_id} ran and was never pushed")
        if notes[0].started_at < history.due_at.get(job_id, 0.0) - 1e-6:
            found.append(f"{job_id} ran before it was due")
        found += [text for first, second in pairwise(notes) if (text := _unexplained(world, first, second))]
        seqs = [note.job.claim_seq for note in notes]
        if len(set(seqs)) != len(seqs):
            found.append(f"{job_id} was run twice by one claim: {seqs}")
    return found


def _unexplained(world: World, first: RunNote, second: RunNote) -> str:
    """Why the second run was wrong, or nothing: the first asked for it, or its worker lost the lease."""
    lost_at = world.history.lost_leases.get(first.worker)
    if lost_at is not None and lost_at <= second.started_at:
        return ""
    where = f"{first.job.id}: run {second.job.claim_seq} by {second.worker} at {second.started_at:.2f}"
    if first.ended_at is None or first.ended_at > second.started_at + 1e-9:
        return f"{where} overlaps run {first.job.claim_seq} by {first.worker}, whose lease stood"
    if first.wish not in (Verb.RETRY, Verb.SNOOZE):
        return f"{where} came after {first.wish}, and no lease was lost"
    if second.started_at < first.ended_at + 1.0 - 1e-6:
        return f"{where} came before its delay was over"
    return ""
