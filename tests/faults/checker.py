"""Reads a history and says what the promise does not allow. Empty: nothing lost, nothing doubled without a reason.

The rules are those of a queue that hands out what was put in (lost, unexpected), and stricter ones of our own: each
run after the first needs a reason in the history, and so does each moment in which two runs of one job overlap, and
each lease that was lost. The system's own account of what it did is no reason, except where a fault can be seen only
there (`lost lease`).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from math import inf

from .history import End, Fault, Final, History, Pushed, Run

__all__ = ["complaints"]

CLOCKS_S = 1e-6  # sums of floats
UNDER_WAY_S = 0.5  # a run that was handed to its thread or child when its worker froze begins so soon after the thaw
ENDS = {"completed", "failed", "cancelled"}
FREE_RECLAIMS = 2  # later ones may count as kills by the job, an attempt each ...
KILLS_MAX = 3  # ... and with so many it is given up
FOR_GOOD = {"kill", "stop", "drain"}  # a worker does not come back from these
SILENCE = FOR_GOOD | {
    "freeze",
    "cut off",
    "starved",
    "outage",
    "slow",
}  # and during these the store does not hear of it


def complaints(history: History, *, lease_s: float, settles_within_s: float, max_retries: int) -> list[str]:
    """Each broken promise, in a sentence.

    `settles_within_s` is how long after its end a run's result may still be on its way to the store: a fault that
    strikes its worker later than that is no reason to run the job again. Outages are added to it.
    """
    judge = _Judge(history, lease_s, settles_within_s, max_retries)
    found: list[str] = []
    for job in sorted(judge.runs.keys() - history.pushed.keys()):
        found.append(f"{job} ran, and nobody pushed it")
    for job, pushed in history.pushed.items():
        found += judge.of_job(job, pushed)
    for worker in sorted({run.worker for run in history.runs}):
        found += judge.of_worker(worker)
    return found + [
        f"worker {worker} was asked to end, and ended with {code}" for worker, code in history.exits.items() if code
    ]


class _Judge:
    def __init__(self, history: History, lease_s: float, settles_within_s: float, max_retries: int) -> None:
        self._lease_s = lease_s
        self._settles_within_s = settles_within_s
        self._attempts_max = max_retries + 1
        self._finals = history.finals
        self.runs: dict[str, list[Run]] = {}
        self._rolled_back = [fault for fault in history.faults if fault.kind == "rolled back"]
        is_ordered = not self._rolled_back  # else a claim_seq may come again
        for run in sorted(history.runs, key=lambda run: (run.job, run.claim_seq * is_ordered, run.began)):
            self.runs.setdefault(run.job, []).append(run)
        self._outages = [fault for fault in history.faults if fault.kind == "outage"]
        self._weather = [fault for fault in history.faults if fault.kind in ("outage", "slow")]
        self._is_lossy = any(fault.kind == "lossy" for fault in history.faults)
        self._faults: dict[str, list[Fault]] = {}
        for fault in history.faults:
            self._faults.setdefault(fault.worker, []).append(fault)

    # -------------------------------------------------------------------------------------------------------- of a job

    def of_job(self, job: str, pushed: Pushed) -> Iterable[str]:
        """What is wrong with this one."""
        runs, final = self.runs.get(job, []), self._finals.get(job)
        if final is not None:
            yield from self._of_its_end(job, pushed, runs, final)
            yield from self._of_its_attempts(job, runs, final)
        elif pushed.is_acknowledged and not self._is_lossy:
            yield f"{job} was acknowledged and is gone"
        if runs and (early := pushed.at + pushed.delay - min(run.began for run in runs)) > CLOCKS_S:
            yield f"{job} began {early:.3f} s before it was due"
        for run in runs:
            if complaint := self._in_doubt(run):
                yield f"{job}: run {run.claim_seq} at {run.began:.3f} by {run.worker} {complaint}"
        for first, second in pairwise(runs):
            if complaint := self._unexplained(first, second):
                yield f"{job}: run {second.claim_seq} at {second.began:.3f} by {second.worker} {complaint}"

    def _of_its_end(self, job: str, pushed: Pushed, runs: list[Run], final: Final) -> Iterable[str]:
        if final.state not in ENDS:
            yield f"{job} has not come to an end: {final.state}"
        # One that was not seen to end may have ended well, and been settled, before its own last line was on disk.
        if final.state == "completed" and not any(run.end in (End.OK, None) for run in runs):
            yield f"{job} counts as completed, and no run of it ended well"
        if final.state == "failed" and not pushed.may_fail and not self._may_be_killer(runs):
            yield f"{job} counts as failed, and was not to fail"
        if final.state == "cancelled" and not pushed.may_be_cancelled:
            yield f"{job} counts as cancelled, and nobody cancelled it"
        if (final.state == "failed") != final.has_failed_row:
            yield f"{job} is {final.state}, and {'a' if final.has_failed_row else 'no'} row of failed jobs says so"

    def _of_its_attempts(self, job: str, runs: list[Run], final: Final) -> Iterable[str]:
        """A failed attempt each; one more for the run that ended well; one more where it was settled unrun."""
        failures = sum(run.end is End.FAILED for run in runs)
        stored = sum(
            a.end is End.FAILED and not self._may_have_lost(a, b) and not self._is_forgotten(a, b)
            for a, b in pairwise(runs)
        )
        is_completed = final.state == "completed"
        if final.attempts > self._attempts_max + (final.state == "failed"):
            yield f"{job} spent {final.attempts} attempts"
        if is_completed and final.attempts > failures + 1 + self._suspicions(runs):
            yield f"{job} was charged {final.attempts} attempts for {failures} failures and one good run"
        if final.attempts < stored + is_completed:
            yield f"{job} was charged {final.attempts} attempts for {stored} failures that were stored, and its end"
        if final.state == "failed" and final.attempts < self._attempts_max and not self._may_be_killer(runs):
            yield f"{job} was given up after {final.attempts} of {self._attempts_max} attempts"
        if stored >= self._attempts_max:
            yield f"{job} ran again after {stored} failures, and has {self._attempts_max} attempts"

    def _suspicions(self, runs: list[Run]) -> int:
        """How many reclaims may have been charged to this job. claim_seq counts claims and reclaims."""
        return max(0, runs[-1].claim_seq - len(runs) - FREE_RECLAIMS) if runs else 0

    def _may_be_killer(self, runs: list[Run]) -> bool:
        return self._suspicions(runs) + 1 >= KILLS_MAX  # the last run was taken back too, and the job settled unrun

    def _unexplained(self, first: Run, second: Run) -> str:
        """Why the second run is wrong, or nothing."""
        if self._is_forgotten(first, second):
            return ""
        if first.claim_seq == second.claim_seq:
            return f"is by the same claim as the one by {first.worker}"
        overlaps = first.ended is None or first.ended > second.began + CLOCKS_S
        if not overlaps and first.ended is not None and first.end in (End.FAILED, End.SNOOZED):
            if second.began >= first.ended + first.again_in - CLOCKS_S or self._may_have_lost(first, second):
                return ""
            return f"came {first.ended + first.again_in - second.began:.3f} s before its delay was over"
        if self._may_have_lost(first, second):
            return ""
        if overlaps:
            return f"overlaps run {first.claim_seq} by {first.worker}, which lost no lease"
        how = first.end.value if first.end else "unseen"
        return f"came after run {first.claim_seq} by {first.worker} had ended {how}, and nothing happened to that one"

    def _is_forgotten(self, first: Run, second: Run) -> bool:
        """Whether the store, when it lent the job again, may not have known any more of the first run or its result."""
        last = second.began if first.ended is None else first.ended + self._settles_within_s
        return any(
            second.began > fault.began and first.began <= fault.ended and last >= fault.began
            for fault in self._rolled_back
        )

    def _may_have_lost(self, first: Run, second: Run) -> bool:
        """Whether something kept the first run's result from the store, or its worker from keeping its lease."""
        until = second.began
        if first.ended is not None:
            until = min(until, first.ended + self._settles_within_s + self._away_s(first.ended, second.began))
        return any(self._explains(fault, first, second, until) for fault in self._faults.get(first.worker, ()))

    def _explains(self, fault: Fault, first: Run, second: Run, until: float) -> bool:
        if fault.began > until or fault.ended < first.began - UNDER_WAY_S:
            return False
        match fault.kind:
            case "kill" | "lost lease":
                return True
            case "freeze" | "cut off" | "starved":  # it takes a lease to lose a lease
                return second.began - fault.began >= self._lease_s * 5 / 6 - CLOCKS_S
            case "stop" if first.end in (End.CUT, None):  # what is cut goes back, and waits until it has surely ended
                return second.began >= (fault.ended if first.ended is None else first.ended) - CLOCKS_S
            case "stop":  # its time was over, and the store away
                return any(
                    first.ended is not None
                    and first.ended <= outage.ended
                    and outage.began <= fault.ended <= outage.ended + self._settles_within_s
                    for outage in self._weather
                )
            case _:
                return False

    def _away_s(self, since: float, until: float) -> float:
        return sum(max(0.0, min(out.ended, until) - max(out.began, since)) for out in self._outages)

    # ----------------------------------------------------------------------------------------------------- of a worker

    def of_worker(self, worker: str) -> Iterable[str]:
        """A worker that can reach the store keeps its lease, also when the store was away for longer than that."""
        for lost in self._faults.get(worker, ()):
            if lost.kind == "lost lease" and not self._was_silent(
                worker, lost.began - self._lease_s * 5 / 6, lost.began
            ):
                yield f"worker {worker} lost its lease at {lost.began:.3f}, and could have kept it"

    def _was_silent(self, worker: str, since: float, until: float) -> bool:
        """Whether faults kept its heartbeats from the store all that time. After each it has a third of the lease.

        The last of them must be more than an outage: after one of those the others wait until it could be heard again.
        """
        reached = since + CLOCKS_S
        own = since
        for fault in sorted([*self._weather, *self._faults[worker]], key=lambda fault: fault.began):
            if fault.began <= reached and fault.kind in SILENCE:
                ended = inf if fault.kind in FOR_GOOD else fault.ended + self._lease_s / 3
                reached = max(reached, ended)
                own = own if fault.kind == "outage" else max(own, ended)
        return own > until

    def _in_doubt(self, run: Run) -> str:
        """A worker that has missed two heartbeats in a row starts nothing. One that was frozen cannot know."""
        faults = self._faults.get(run.worker, ())
        frozen = [fault for fault in faults if fault.kind == "freeze" and fault.began <= run.began]
        for cut in faults:
            if cut.kind not in ("cut off", "starved") or not cut.began + self._lease_s * 2 / 3 < run.began < cut.ended:
                continue
            if not any(fault.ended >= cut.began for fault in frozen):
                return f"was begun {run.began - cut.began:.3f} s after its worker had been {cut.kind}"
        return ""
