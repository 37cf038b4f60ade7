"""2,000 pushes inside the application's transactions, 2,000 jobs completed inside their own; all is killed at random.

A job exists if and only if the row exists that was stored with it; each job has its effect exactly once. The processes
die at points of their own choice and by kill -9 from outside, workers are frozen for longer than their lease, and the
server is killed. SQL stores only: the others have no transactions to join.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from sqlalchemy import select, text

from protojobs import JobQueue
from protojobs_sqlalchemy import JobModel

from ..crew import Crew, wait_for
from ..stage import Report, Stage
from ..transacting import TABLES, Effect, complete_async, complete_plain

MINUTES = 8.0  # the longest that the workers' faults go on
TRANSACTIONS = 2_000
APPLICATIONS = 2
WORKERS = 3
CONCURRENCY = 6
LEASE_S = 2.0
FROZEN_S = 3.0
FREEZE_EACH = 3  # of so many troubles of the workers one is a freeze
CRASH_EVERY_S = (4.0, 10.0)  # while applications push
LIFE_S = 3.0  # the longest life of an application's process
CRASH_AFTER = 6  # troubles of the workers comes one of the server
TROUBLES = ("", "raises", "rolls back", "gives up")
TROUBLES_MEANT = 80  # of the workers, spread over the jobs: so a slow machine has as many as a fast one
DRAIN_S = 120.0
STOP_S = 30.0
SHOWN = 10  # complaints of one kind


def run(stage: Stage, transactions: int = TRANSACTIONS) -> Report:
    """Both halves, one after the other."""
    report = Report()
    if stage.kind not in ("sqlite", "postgresql", "mariadb"):
        report.figures["not run"] = "the store has no transactions to join"
        return report
    crew = Crew(stage.folder, lease_s=LEASE_S, concurrency=CONCURRENCY)
    with stage.queue() as queue:
        with queue.driver.begin() as session:  # type: ignore[attr-defined]
            for table in TABLES:
                session.execute(text(table))
        try:
            push_in_transactions(stage, crew, report, transactions)
            judge_pushes(queue, crew, report)
            complete_in_transactions(stage, crew, queue, report, transactions)
            judge_effects(queue, crew, report)
        finally:
            crew.dismiss()
    return report


# ------------------------------------------------------------------------------------------ pushing in a transaction


def push_in_transactions(stage: Stage, crew: Crew, report: Report, transactions: int) -> None:
    """Applications make their transactions; they see to their own deaths, the server's are ours."""
    for n in range(APPLICATIONS):
        share = transactions // APPLICATIONS + (n < transactions % APPLICATIONS)
        seed = stage.dice.getrandbits(32)
        crew.produce(stage.url, module="faults.transacting", seed=seed, count=share, life_s=LIFE_S)
    crashes = Prefetch(stage, CRASH_EVERY_S)
    server_crashes = 0
    ends = time.monotonic() + _fault_seconds(stage) + DRAIN_S
    while any(member.is_there for member in crew.producers):
        if time.monotonic() > ends:
            raise TimeoutError(f"{len(crew.entries('transaction'))} of {transactions} transactions have been made")
        if stage.server is not None and crashes.is_due:
            stage.server.crash()
            server_crashes += 1
            crashes.next()
        time.sleep(0.02)  # the pace of the faults
    for member in crew.producers:
        if member.process.returncode:
            report.complaints.append(f"application {member.name} ended with {member.process.returncode}")
    report.figures["transactions"] = len(crew.entries("transaction"))
    report.figures["applications killed"] = sum(int(str(entry["killed"])) for entry in crew.entries("lived"))
    report.figures["server crashes while pushing"] = server_crashes


def judge_pushes(queue: JobQueue, crew: Crew, report: Report) -> None:
    """The orders and the jobs are the same set, and what the applications were told is true of it."""
    with queue.driver.begin() as session:  # type: ignore[attr-defined]
        orders = Counter(str(row) for row in session.scalars(text("select job from orders")))
        jobs = {str(row) for row in session.scalars(select(JobModel.id).where(JobModel.queue == "stored"))}
    told = {
        outcome: {str(entry["id"]) for entry in crew.entries(outcome)}
        for outcome in ("transaction", "committed", "rolled back", "unknown")
    }
    answered = told["committed"] | told["rolled back"] | told["unknown"]
    wrong = {
        "orders without their job": orders.keys() - jobs,
        "jobs without their order": jobs - orders.keys(),
        "orders stored twice": {job for job, times in orders.items() if times > 1},
        "committed and gone": told["committed"] - (orders.keys() & jobs),
        "rolled back and there": told["rolled back"] & (orders.keys() | jobs),
        "jobs that nobody pushed": jobs - told["transaction"],
    }
    _complain(report, wrong)
    report.figures |= {outcome: len(told[outcome]) for outcome in ("committed", "rolled back", "unknown")}
    report.figures["killed before the outcome was known"] = len(told["transaction"] - answered)
    report.figures["of all unknown: there"] = len(orders.keys() - told["committed"])
    report.figures |= {what: len(ids) for what, ids in wrong.items()}


# --------------------------------------------------------------------------------------- completing in a transaction


def complete_in_transactions(stage: Stage, crew: Crew, queue: JobQueue, report: Report, transactions: int) -> None:
    """Workers run the jobs, and are killed and frozen until all are done or the time is over."""
    pause_s = 0.003 if stage.kind == "sqlite" else 0.03  # SQLite's only writer makes all others wait meanwhile
    for n in range(transactions):
        effect = Effect(pause_s, stage.dice.choices(TROUBLES, (70, 10, 10, 10))[0])
        queue.push((complete_plain, complete_async)[n % 2].bind(effect))
    trouble = Trouble(stage, crew, transactions / TROUBLES_MEANT)
    ends = time.monotonic() + _fault_seconds(stage)
    while time.monotonic() < ends and not _is_over(queue):
        trouble.make(queue.stats("work").completed)
        time.sleep(0.05)  # the pace of the faults
    trouble.end()
    kinds = Counter(fault.kind for fault in crew.faults)
    report.figures |= {"workers killed": kinds["kill"], "workers frozen": kinds["freeze"]}
    report.figures["server crashes while working"] = trouble.server_crashes
    report.figures["done under faults"] = queue.stats("work").completed
    try:
        report.figures["drained in s"] = round(wait_for("all jobs to end", lambda: _is_over(queue), DRAIN_S), 1)
        for member in crew.at_work:
            # One that was hired at the server's last crash may have found no store, and ended.
            wait_for("a worker to begin", lambda member=member: member in crew.ready or not member.is_there, STOP_S)
            if member.is_there:
                crew.stop(member, within_s=STOP_S)
            else:
                trouble.in_vain += 1
    except TimeoutError as error:
        report.complaints.append(str(error))
    report.figures["workers that began while the server was away"] = trouble.in_vain


class Trouble:
    """What is done to the workers, and their replacement."""

    def __init__(self, stage: Stage, crew: Crew, jobs_between: float) -> None:
        self.server_crashes = 0
        self.in_vain = 0
        self.done = 0
        self._stage = stage
        self._crew = crew
        self._jobs_between = jobs_between
        self._due_at = self._after(0)
        self._frozen: list[tuple[float, Callable[[], None]]] = []
        self._hire()

    def make(self, completed: int) -> None:
        """Do what it is time for, with so many jobs completed."""
        crew, dice = self._crew, self._stage.dice
        if completed >= self._due_at and (ready := crew.ready):
            self._due_at = self._after(completed)
            self.done += 1
            time.sleep(dice.uniform(0, 0.1))  # into a random step of whatever runs
            member = dice.choice(ready)
            if self.done % FREEZE_EACH == FREEZE_EACH - 1:
                self._frozen.append((time.monotonic() + FROZEN_S, crew.freeze(member)))
            else:
                crew.kill(member)
        while self._frozen and self._frozen[0][0] <= time.monotonic():
            self._frozen.pop(0)[1]()
        if self._stage.server is not None and self.done // CRASH_AFTER > self.server_crashes:
            self._stage.server.crash()
            self.server_crashes += 1
        self._hire()

    def end(self) -> None:
        """Let all go on."""
        for _, thaw in self._frozen:
            thaw()
        self._hire()

    def _after(self, completed: int) -> float:
        return completed + self._stage.dice.uniform(0.3, 1.7) * self._jobs_between

    def _hire(self) -> None:
        """A worker that finds no store at its start says so and ends; a supervisor would start it again, as we do."""
        crew = self._crew
        for member in [member for member in crew.workers if not member.is_there]:
            crew.workers.remove(member)
            self.in_vain += member.process.returncode != -9
        while len(crew.workers) < WORKERS:
            crew.hire(self._stage.url, app="faults.transacting")


def judge_effects(queue: JobQueue, crew: Crew, report: Report) -> None:
    """Each job is completed and has one effect, by one run."""
    with queue.driver.begin() as session:  # type: ignore[attr-defined]
        effects = Counter(str(row) for row in session.scalars(text("select job from effects")))
        table = select(JobModel.id, JobModel.status, JobModel.attempts).where(JobModel.queue == "work")
        finals = {str(job): (str(status), attempts) for job, status, attempts in session.execute(table)}
    states = Counter(status for status, _ in finals.values())
    wrong = {
        "not completed": {job for job, (status, _) in finals.items() if status != "completed"},
        "doubled": {job for job, times in effects.items() if times > 1},
        "missing": finals.keys() - effects.keys(),
        "effects of no job": effects.keys() - finals.keys(),
    }
    _complain(report, wrong)
    if (counted := queue.stats("work").completed) != states["completed"]:
        report.complaints.append(f"{states['completed']} jobs are completed, and the counters say {counted}")
    report.complaints += [f"worker {name} ended with {code}" for name, code in crew.exits.items() if code]
    report.figures |= {f"jobs {state}": number for state, number in sorted(states.items())}
    report.figures["runs"] = len(crew.entries("start"))
    report.figures["attempts spent"] = sum(attempts for _, attempts in finals.values())
    report.figures["most attempts of one job"] = max(attempts for _, attempts in finals.values())
    report.figures["late results"] = len(crew.entries("job.late"))
    report.figures["effects"] = effects.total()
    report.figures |= {what: len(ids) for what, ids in wrong.items()}


# ------------------------------------------------------------------------------------------------------ small things


def _complain(report: Report, wrong: dict[str, set[str]]) -> None:
    for what, ids in wrong.items():
        report.complaints += [f"{what}: {job}" for job in sorted(ids)[:SHOWN]]
        if len(ids) > SHOWN:
            report.complaints.append(f"{what}: {len(ids) - SHOWN} more")


class Prefetch:
    """When it is time for the next one."""

    def __init__(self, stage: Stage, every_s: tuple[float, float]) -> None:
        self._stage = stage
        self._every_s = every_s
        self.next()

    def next(self) -> None:
        """Begin to wait for it."""
        self._due_at = time.monotonic() + self._stage.dice.uniform(*self._every_s)

    @property
    def is_due(self) -> bool:
        """Whether the wait is over."""
        return time.monotonic() >= self._due_at


def _fault_seconds(stage: Stage) -> float:
    return 60 * (stage.minutes or MINUTES)


def _is_over(queue: JobQueue) -> bool:
    stats = queue.stats("work")
    return stats.pending == stats.processing == 0
