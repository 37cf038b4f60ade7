"""After the faults: wait until the store has come to rest, judge the history, and count."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise

from protojobs.port.lifecycle import SUSPECT_RECLAIMS

from .checker import complaints
from .crew import Crew, wait_for
from .history import End, History, Run
from .jobs import MAX_RETRIES
from .stage import Report, Stage
from .times import Registered, rested

__all__ = ["followed", "percentile", "recoveries", "summed_up"]

PRODUCED_S = 60.0
SETTLES_WITHIN_S = 2.0


def summed_up(stage: Stage, crew: Crew, count: int, *, drain_s: float, schedules: Sequence[Registered] = ()) -> Report:
    """The report on a run in which `count` jobs were to be pushed, schedules fired more, and all were to end."""
    report = Report()
    with stage.queue() as queue:
        times = [rested(queue, crew, one, within_s=drain_s) for one in schedules]

        def is_over() -> bool:
            stats = queue.stats()
            return stats.pending == stats.processing == 0

        try:
            wait_for("the producers to end", lambda: not any(p.is_there for p in crew.producers), PRODUCED_S + drain_s)
            report.figures["drained in s"] = round(wait_for("all jobs to end", is_over, drain_s), 1)
        except TimeoutError as error:
            report.complaints.append(str(error))
        fired = {job: pushed for one in times for job, pushed in one.fired().items()}
        history = crew.history(queue, fired)
    # Beside the journals: whoever looks into a broken promise needs to know what was done when.
    (crew.folder / "faults.json").write_text(json.dumps([asdict(fault) for fault in history.faults], indent=1))
    killed = {fault.worker for fault in crew.faults if fault.kind == "kill"}
    codes = {p.name: p.process.poll() for p in crew.producers if p.name not in killed}
    report.complaints += [f"producer {name} ended with {code}" for name, code in codes.items() if code != 0]
    begun = {entry["worker"] for entry in crew.entries("worker.starting")}  # one that finds no store at its start ends
    report.complaints += [f"worker {member.name} left by itself" for member in crew.left if member.name in begun]
    report.complaints += judged(history, crew)
    acknowledged = sum(pushed.is_acknowledged for pushed in history.pushed.values())
    if acknowledged - len(fired) != count:
        report.complaints.append(f"{acknowledged} jobs were acknowledged, of {count} that were to be pushed")
    report.figures = counted(history, crew) | report.figures
    for one in times:
        report.complaints += one.complaints()
        report.figures |= one.figures()
    return report


def judged(history: History, crew: Crew) -> list[str]:
    """The checker's word, in the bounds of these workers."""
    return complaints(history, lease_s=crew.lease_s, settles_within_s=SETTLES_WITHIN_S, max_retries=MAX_RETRIES)


def counted(history: History, crew: Crew) -> dict[str, object]:
    """What there was of everything."""
    faults = Counter(fault.kind for fault in history.faults)
    planned = sum(first.end in (End.FAILED, End.SNOOZED) for first, _ in followed(history))
    states = Counter(final.state for final in history.finals.values())
    pushes = [float(str(entry["took_s"])) for entry in crew.entries("acknowledged")]
    figures: dict[str, object] = {"jobs": len(history.pushed), **dict(states), "runs": len(history.runs)}
    figures |= {"further runs, as planned": planned}
    figures |= {"further runs, by faults": len(followed(history)) - planned}
    figures |= {f"faults: {kind}": number for kind, number in sorted(faults.items())}
    figures["store away in s"] = round(sum(f.ended - f.began for f in history.faults if f.kind == "outage"), 1)
    figures |= {"late results": len(crew.entries("job.late")), "reclaimed": len(crew.entries("job.lost"))}
    if pushes:
        figures["slowest push in s"] = round(max(pushes), 2)
    ordinary, suspects = recoveries(history)
    if ordinary:
        figures |= {"killed in a run": len(ordinary), "recovery p50 in s": round(statistics.median(ordinary), 2)}
        figures["recovery p99 in s"] = round(percentile(ordinary, 99), 2)
    if suspects:
        figures |= {
            "killed in a run as suspects": len(suspects),
            "their slowest recovery in s": round(max(suspects), 2),
        }
    return figures


def recoveries(history: History) -> tuple[list[float], list[float]]:
    """For each run that a kill has ended: seconds from the kill to the next run of its job.

    The second list is that of jobs which have become suspects by it: such a job waits until it can run apart.
    """
    killed = {fault.worker: fault.began for fault in history.faults if fault.kind == "kill"}
    ordinary: list[float] = []
    suspects: list[float] = []
    for first, second in followed(history):
        if first.ended is None and first.worker in killed:
            # Each death is a claim and a reclaim; a job that was given back unrun has more, and counts as suspect here.
            is_suspect = first.claim_seq >= 2 * SUSPECT_RECLAIMS - 1
            (suspects if is_suspect else ordinary).append(second.began - killed[first.worker])
    return ordinary, suspects


def followed(history: History) -> list[tuple[Run, Run]]:
    """Each run that was not its job's last, and the one after it."""
    runs: dict[str, list[Run]] = {}
    for run in sorted(history.runs, key=lambda run: run.claim_seq):
        runs.setdefault(run.job, []).append(run)
    return [pair for of_job in runs.values() for pair in pairwise(of_job)]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` percent of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share / 100))]
