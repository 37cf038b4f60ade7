"""A job that calls os._exit among 200 others: it is given up after three deaths, and its neighbours do not pay.

In child processes the deaths are those of its own child. In threads it takes the whole worker down twice, and the
supervisor starts another; then it is a suspect, and runs in a child there too.
"""

from __future__ import annotations

from collections import Counter

from protojobs import JobQueue
from protojobs.port.records import JobRecord

from ..crew import Crew, wait_for
from ..jobs import Plan
from ..killers import act, act_apart, exit_at_once
from ..stage import Report, Stage

NEIGHBOURS = 200
CONCURRENCY = 8
LEASE_S = 2.0
TAKES_S = 0.05
IN_CHILDREN_S = 90.0
IN_THREADS_S = 180.0
STOP_S = 30.0
DEATHS = 3  # of its own
SUSPECT_AFTER = 2  # deaths of a worker with all its neighbours, before the job is suspected


def run(stage: Stage, neighbours: int = NEIGHBOURS) -> Report:
    """Both kinds of worker, one after the other."""
    report = Report()
    poison(stage, report, "children", neighbours, within_s=IN_CHILDREN_S)
    poison(stage, report, "threads", neighbours, within_s=IN_THREADS_S)
    return report


def poison(stage: Stage, report: Report, where: str, neighbours: int, *, within_s: float) -> None:
    """Run the killer among its neighbours in `children` or in `threads`."""
    crew = Crew(stage.folder / where, lease_s=LEASE_S, concurrency=CONCURRENCY)
    crew.folder.mkdir()
    others = act_apart if where == "children" else act
    with stage.queue() as queue:
        place = stage.dice.randrange(neighbours)
        ids = [queue.push(others.bind(Plan(TAKES_S))) for _ in range(place)]
        killer = queue.push(exit_at_once.bind())
        ids += [queue.push(others.bind(Plan(TAKES_S))) for _ in range(neighbours - place)]
        options = ("--executor", "process") if where == "children" else ("--processes", "2")
        try:
            worker = crew.hire(stage.url, app="faults.killers", options=options)
            try:
                took_s = wait_for("all jobs to end", lambda: not _live(queue), within_s)
                report.figures[f"in {where}: all ended after s"] = round(took_s, 1)
                crew.stop(worker, within_s=STOP_S)
            except TimeoutError as error:
                report.complaints.append(f"in {where}: {error}")
        finally:
            crew.dismiss()
        report.complaints += [f"in {where}: {complaint}" for complaint in _judged(queue, crew, where, killer, ids)]
        attempts = Counter(record.attempts for record in _records(queue, ids))
        report.figures |= {
            f"in {where}: deaths": len(crew.entries("killing")),
            f"in {where}: runs of the {neighbours} others": len(crew.entries("start")),
            f"in {where}: of these with one attempt": attempts[1],
        }


def _judged(queue: JobQueue, crew: Crew, where: str, killer: str, ids: list[str]) -> list[str]:
    found: list[str] = []
    (record,) = queue.driver.get([killer])
    (failed,) = [row.exception for row in queue.failed_jobs() if row.job_id == killer] or [""]
    if record.status != "failed" or record.crashes != DEATHS:
        found.append(f"the killer is {record.status} with {record.crashes} crashes, not failed with {DEATHS}")
    if "JobCrashed" not in failed:
        found.append(f"the killer failed without a word of its crashes: {failed[-200:]!r}")
    expected = DEATHS + (SUSPECT_AFTER if where == "threads" else 0)
    if (deaths := len(crew.entries("killing"))) != expected:
        found.append(f"the killer has killed {deaths} times, not {expected}")
    others = _records(queue, ids)
    if len(others) < len(ids):
        found.append(f"{len(ids) - len(others)} of its neighbours are gone")
    for other in others:
        if (other.status, other.attempts, other.crashes) != ("completed", 1, 0):
            found.append(f"{other.id} is {other.status} with {other.attempts} attempts and {other.crashes} crashes")
    runs = Counter(str(entry["id"]) for entry in crew.entries("start"))
    if where == "children" and runs.most_common(1)[0][1] > 1:
        found.append(f"{runs.most_common(1)[0][0]} ran again, though only the killer's child had died")
    found += [f"worker {name} ended with {code}" for name, code in crew.exits.items() if code]
    return found


def _records(queue: JobQueue, ids: list[str]) -> list[JobRecord]:
    return list(queue.driver.get(ids))


def _live(queue: JobQueue) -> int:
    stats = queue.stats("work")
    return stats.pending + stats.processing
