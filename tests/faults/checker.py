"""Reads a history and says what the promise does not allow. Empty: nothing lost, nothing doubled without a reason.

The rules are those of a queue that hands out what was put in (lost, unexpected), and stricter ones of our own: each
run after the first needs a reason in the history, and so does each moment in which two runs of one job overlap. The
system's own account of what it did is no reason, except where a fault can be seen only there (`lost lease`).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from .history import End, Fault, Final, History, Pushed, Run

__all__ = ["complaints"]

CLOCKS_S = 1e-6  # sums of floats
ENDS = {"completed", "failed", "cancelled"}


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
    return found + [
        f"worker {worker} was asked to end, and ended with {code}" for worker, code in history.exits.items() if code
    ]


class _Judge:
    def __init__(self, history: History, lease_s: float, settles_within_s: float, max_retries: int) -> None:
        self._lease_s = lease_s
        self._settles_within_s = settles_within_s
        self._max_retries = max_retries
        self._finals = history.finals
        self.runs: dict[str, list[Run]] = {}
        for run in sorted(history.runs, key=lambda run: (run.job, run.claim_seq, run.began)):
            self.runs.setdefault(run.job, []).append(run)
        self._outages = [fault for fault in history.faults if fault.kind == "outage"]
        self._is_lossy = any(fault.kind == "lossy" for fault in history.faults)
        self._faults: dict[str, list[Fault]] = {}
        for fault in history.faults:
            self._faults.setdefault(fault.worker, []).append(fault)

    def of_job(self, job: str, pushed: Pushed) -> Iterable[str]:
        """What is wrong with this one."""
        runs, final = self.runs.get(job, []), self._finals.get(job)
        yield from self._of_its_end(job, pushed, runs, final)
        if runs and runs[0].began < pushed.at + pushed.delay - CLOCKS_S:
            yield f"{job} began {pushed.at + pushed.delay - runs[0].began:.3f} s before it was due"
        for first, second in pairwise(runs):
            if complaint := self._unexplained(first, second):
                yield f"{job}: run {second.claim_seq} at {second.began:.3f} by {second.worker} {complaint}"

    def _of_its_end(self, job: str, pushed: Pushed, runs: list[Run], final: Final | None) -> Iterable[str]:
        if final is None:
            if pushed.is_acknowledged and not self._is_lossy:
                yield f"{job} was acknowledged and is gone"
            return
        if final.state not in ENDS:
            yield f"{job} has not come to an end: {final.state}"
        if final.state == "completed" and not any(self._may_be_ok(run) for run in runs):
            yield f"{job} counts as completed, and no run of it ended well"
        if final.state == "failed" and not pushed.may_fail:
            yield f"{job} counts as failed, and was not to fail"
        if (final.state == "failed") != final.has_failed_row:
            yield f"{job} is {final.state}, and {'a' if final.has_failed_row else 'no'} row of failed jobs says so"
        # A failed attempt each; one more for the run that ended well; one more where it was settled unrun.
        failures = sum(run.end is End.FAILED for run in runs)
        if final.attempts > self._max_retries + 1 + (final.state == "failed"):
            yield f"{job} spent {final.attempts} attempts"
        if final.state == "completed" and final.attempts > failures + 1:
            yield f"{job} was charged {final.attempts} attempts for {failures} failures and one good run"

    def _may_be_ok(self, run: Run) -> bool:
        # One that was not seen to end may have ended well, and been settled, before its own last line was on disk.
        return run.end in (End.OK, None)

    def _unexplained(self, first: Run, second: Run) -> str:
        """Why the second run is wrong, or nothing."""
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

    def _may_have_lost(self, first: Run, second: Run) -> bool:
        """Whether something kept the first run's result from the store, or its worker from keeping its lease."""
        until = second.began
        if first.ended is not None:
            until = min(until, first.ended + self._settles_within_s + self._away_s(first.ended, second.began))
        return any(self._explains(fault, first, second, until) for fault in self._faults.get(first.worker, ()))

    def _explains(self, fault: Fault, first: Run, second: Run, until: float) -> bool:
        if fault.began > until or fault.ended < first.began:
            return False
        match fault.kind:
            case "kill" | "lost lease":
                return True
            case "freeze" | "cut off":  # it takes a lease to lose a lease
                return second.began - fault.began >= self._lease_s * 5 / 6 - CLOCKS_S
            case "stop":  # what is cut at the end of the grace goes back
                return first.end in (End.CUT, None)
            case _:
                return False

    def _away_s(self, since: float, until: float) -> float:
        return sum(max(0.0, min(out.ended, until) - max(out.began, since)) for out in self._outages)
