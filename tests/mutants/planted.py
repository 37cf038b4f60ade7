"""The mutants: small faults planted in a driver, most in that of memory, which the conformance kit must catch by name.

A mutant replaces pieces of the source. Each piece must be there exactly once, so that a mutant which the driver has
outgrown is an error and not one that is "caught" for nothing. `first` names the concerns whose tests should see it;
they run first.
"""

from __future__ import annotations

from mutants.mutant import mutant
from mutants.planted_observing import OBSERVING_MUTANTS
from mutants.planted_results import RESULT_MUTANTS
from mutants.planted_rules import RULE_MUTANTS
from mutants.planted_schedules import SCHEDULE_MUTANTS

DRIVER, STATE, PEOPLE, TRANSFER = "driver.py", "state.py", "administration.py", "transfer.py"
CLAIMING, LEASES = "claiming.py", "leases.py"

FENCE = "if row is None or row.claim_seq != claim.claim_seq or row.reserved_by != claim.reserved_by:"
SETTLE = "job, settled = rules.settle(job, settlement, now, failed_id=failed_id)"
RECLAIM = "job, lost = rules.reclaim(exported(state, row), worker, now)"
RETRY = "job, answer = rules.retry_failed(before, now)"
WITH_REPLACE = "from msgspec.structs import replace\n\nfrom protojobs.errors import LeaseLost\n"
WITH_REPLACE_IN_CLAIMING = "from msgspec.structs import replace\n\nfrom protojobs.entropy import fresh_id\n"
CLAIM = "rules.lendable(due_rows(state, now, queues), slots=slots, limit=limit)"
REMOVE_CHECK = (STATE, "if None not in TRANSITIONS.get((row.state, verb), ()):", "if False:")

MUTANTS = (
    # the fence
    mutant(
        "the fence forgets claim_seq",
        "fencing",
        (STATE, FENCE, "if row is None or row.reserved_by != claim.reserved_by:"),
    ),
    mutant(
        "the fence forgets the holder",
        "fencing",
        (STATE, FENCE, "if row is None or row.claim_seq != claim.claim_seq:"),
    ),
    mutant(
        "a claim without holder passes the fence",
        "fencing",
        (STATE, "return row if row.reserved_by else None", "return row"),
    ),
    mutant(
        "a repeated settlement is taken for stale",
        "fencing",
        (
            CLAIMING,
            SETTLE,
            f"{SETTLE}\n"
            "    if settled.status is SettleStatus.REPEATED:\n"
            "        settled = Settled(settled.id, SettleStatus.STALE, settled.state, settled.available_at)",
        ),
    ),
    mutant(
        "a repeated release is applied again",
        "fencing settling",
        (
            CLAIMING,
            SETTLE,
            f"{SETTLE}\n"
            "    if row is not None and settled.status is SettleStatus.REPEATED and row.state is JobState.PENDING:\n"
            "        row.attempts -= settlement.verb is Verb.RELEASE",
        ),
    ),
    mutant(
        "a lost claim is taken for a repeated one",
        "fencing",
        (
            CLAIMING,
            SETTLE,
            f"{SETTLE}\n"
            "    if job is not None and settled.status is SettleStatus.STALE and not job.reserved_by:\n"
            "        settled = Settled(settled.id, SettleStatus.REPEATED, settled.state, settled.available_at)",
        ),
    ),
    mutant(
        "another's claim is taken for a repeated one",
        "fencing",
        (
            CLAIMING,
            SETTLE,
            f"{SETTLE}\n"
            "    is_same = job is not None and job.claim_seq == settlement.claim_seq\n"
            "    if settled.status is SettleStatus.STALE and is_same:\n"
            "        settled = Settled(settled.id, SettleStatus.REPEATED, settled.state, settled.available_at)",
        ),
    ),
    mutant(
        "reclaim keeps claim_seq",
        "fencing leases",
        (LEASES, "    return lost\n", "    row.claim_seq -= 1\n    return lost\n"),
    ),
    mutant(
        "a retry by hand keeps claim_seq",
        "fencing failures",
        (
            PEOPLE,
            RETRY,
            f"{RETRY}\n"
            "    if row is not None and job is not None:\n"
            "        job = replace(job, claim_seq=row.claim_seq)",
        ),
        (PEOPLE, "from msgspec import convert\n", "from msgspec import convert\nfrom msgspec.structs import replace\n"),
    ),
    mutant(
        "an export keeps claim_seq",
        "transferring fencing",
        (TRANSFER, "    moving.add(row.export_key)\n", "    moving.add(row.export_key)\n    row.claim_seq -= 1\n"),
    ),
    mutant(
        "progress of a lost claim is stored",
        "fencing",
        (
            LEASES,
            "if (job := state.current(claim)) is not None:",
            "if (job := state.rows.get(claim.id)) is not None:",
        ),
    ),
    mutant(
        "a result counts only while its worker's row stands",
        "fencing",
        (
            STATE,
            "return row if row.reserved_by else None",
            "return row if row.reserved_by in self.workers else None",
        ),
        (
            CLAIMING,
            SETTLE,
            "if job is not None and job.reserved_by not in state.workers:\n"
            "        return Settled(settlement.id, SettleStatus.STALE)\n"
            f"    {SETTLE}",
        ),
    ),
    # order and claims
    mutant(
        "priority is turned round",
        "claiming",
        (STATE, "dict(sorted(self.lanes.items(), reverse=True))", "dict(sorted(self.lanes.items()))"),
    ),
    mutant(
        "the last job goes first",
        "claiming delays",
        (CLAIMING, "for _, job_id in lane.below(bound):", "for _, job_id in reversed(list(lane.below(bound))):"),
    ),
    mutant(
        "queues go by name and not as asked",
        "claiming",
        (CLAIMING, "for name in dict.fromkeys(queues):", "for name in sorted(set(queues)):"),
    ),
    mutant(
        "a job stays in its lane while it is lent",
        "claiming racing",
        (
            STATE,
            "            queue.lanes[job.priority].remove((row.available_at, job.id))\n",
            "            pass\n",
        ),
    ),
    mutant(
        "a claim takes the jobs of lapsed workers",
        "claiming leases",
        (
            DRIVER,
            "            return claiming.claim(self.state, self.now(), worker, queues, slots, limit)\n",
            "            leases.check_lease(self.state, worker)\n"
            "            self.reclaim(limit)\n"
            "            return claiming.claim(self.state, self.now(), worker, queues, slots, limit)\n",
        ),
    ),
    mutant(
        "two claims at once read the same due jobs",
        "racing claiming",
        (
            CLAIMING,
            "from protojobs.entropy import fresh_id\n",
            "from protojobs.clock import SYSTEM_CLOCK\nfrom protojobs.entropy import fresh_id\n",
        ),
        (
            CLAIMING,
            "    for row in rows:\n        row.attempts += 1\n",
            "    state.lock.release()  # the lock is let go between reading and claiming\n"
            "    SYSTEM_CLOCK.sleep(0.002)\n"
            "    state.lock.acquire()\n"
            "    for row in rows:\n"
            "        if row.state is not JobState.PENDING:\n"
            "            row.state, row.reserved_by = JobState.PROCESSING, worker\n"
            "            row.claim_seq += 1\n"
            "            state.holders[worker][row.job.id] = row\n"
            "            continue\n"
            "        row.attempts += 1\n",
        ),
    ),
    mutant(
        "a delayed job is seen a millisecond early",
        "delays",
        (STATE, "return moment + MICROSECOND, ", "return moment + 1000 * MICROSECOND, "),
    ),
    mutant(
        "a delay is forgotten",
        "delays",
        (CLAIMING, "return now + timedelta(seconds=job.delay) if job.delay else now", "return now"),
    ),
    mutant(
        "more is claimed than the limit",
        "claiming",
        (CLAIMING, CLAIM, CLAIM.replace("limit=limit", "limit=limit + 1")),
    ),
    mutant(
        "a last attempt waits beyond the slots",
        "claiming",
        (CLAIMING, CLAIM, CLAIM.replace("slots=slots", "slots=limit")),
    ),
    mutant(
        "the bytes of a claim are not bounded",
        "claiming",
        (
            CLAIMING,
            f"    rows = {CLAIM}\n",
            "    due, rows = list(due_rows(state, now, queues)), list[Row]()\n"
            "    while more := rules.lendable(due, slots=slots - len(rows), limit=limit - len(rows)):\n"
            "        rows += more\n"
            "        due = [row for row in due if row not in rows]\n",
        ),
    ),
    mutant(
        "a pause is seen late",
        "claiming transferring",
        (
            CLAIMING,
            "if queue is not None and not queue.is_paused:",
            'if queue is not None and not vars(state).setdefault("seen", {}).setdefault(name, queue.is_paused):',
        ),
    ),
    # leases
    mutant(
        "the dead claim jobs",
        "claiming leases",
        (CLAIMING, "    check_lease(state, worker)\n", ""),
    ),
    mutant(
        "a heartbeat revives a lease that is gone",
        "leases",
        (
            LEASES,
            "    row = check_lease(state, worker)\n",
            "    if worker not in state.workers:\n"
            "        register(state, now, WorkerInfo(\n"
            '            id=worker, host="", pid=0, queues=(), concurrency=1, lease_s=60.0\n'
            "        ))\n"
            "    row = check_lease(state, worker)\n",
        ),
    ),
    mutant(
        "reclaim does not look at heartbeats",
        "leases",
        (
            LEASES,
            "if row.lease_ends_at <= now}",
            "if row.started_at + (row.lease_ends_at - row.heartbeat_at) <= now}",
        ),
    ),
    mutant(
        "reclaim does not check the lapse again in the deleting step",
        "racing leases",
        (
            LEASES,
            "from protojobs.errors import LeaseLost\n",
            "from protojobs.clock import SYSTEM_CLOCK\nfrom protojobs.errors import LeaseLost\n",
        ),
        (
            LEASES,
            "    for name in lapsed:\n        del state.workers[name]\n",
            "    state.lock.release()  # the lock is let go between looking and deleting\n"
            "    SYSTEM_CLOCK.sleep(0.002)\n"
            "    state.lock.acquire()\n"
            "    lapsed = {name: row for name, row in lapsed.items() if name in state.workers}\n"
            "    for name in lapsed:\n        del state.workers[name]\n",
        ),
    ),
    mutant(
        "reclaim has no end, and may strike after an outage",
        "leases",
        (
            LEASES,
            "    if until is not None and now > until:\n",
            "    if until is not None and False:\n",
        ),
    ),
    mutant(
        "orphans are not reclaimed",
        "leases waiting",
        (
            LEASES,
            "ownerless = sorted(state.holders.keys() - state.workers.keys(), ",
            "ownerless = sorted(state.holders.keys() & lapsed.keys(), ",
        ),
    ),
    mutant(
        "a lost lease spends the attempt",
        "leases",
        (LEASES, RECLAIM, f"attempts = row.attempts\n    {RECLAIM}\n    job = replace(job, attempts=attempts)"),
        (LEASES, "from protojobs.errors import LeaseLost\n", WITH_REPLACE),
    ),
    mutant(
        "lost leases never spend an attempt",
        "leases",
        (LEASES, RECLAIM, f"attempts = row.attempts - 1\n    {RECLAIM}\n    job = replace(job, attempts=attempts)"),
        (LEASES, "from protojobs.errors import LeaseLost\n", WITH_REPLACE),
    ),
    mutant(
        "a suspect counts a crash though it ran isolated",
        "leases",
        (
            LEASES,
            RECLAIM,
            f"worker = worker and replace(worker, isolates=False)\n    {RECLAIM}",
        ),
        (LEASES, "from protojobs.errors import LeaseLost\n", WITH_REPLACE),
    ),
    mutant(
        "results are lost with the lease",
        "leases fencing",
        (
            DRIVER,
            "            settled = tuple(self.settle(settlements))\n",
            "            if worker not in self.state.workers:\n"
            "                return ClaimReply(lease_lost=True)\n"
            "            settled = tuple(self.settle(settlements))\n",
        ),
    ),
    # settling
    mutant(
        "a release spends the attempt",
        "settling",
        (
            CLAIMING,
            SETTLE,
            f"attempts = row.attempts if row is not None else 0\n    {SETTLE}\n"
            "    if job is not None and settlement.verb is Verb.RELEASE:\n"
            "        job = replace(job, attempts=attempts)",
        ),
        (CLAIMING, "from protojobs.entropy import fresh_id\n", WITH_REPLACE_IN_CLAIMING),
    ),
    mutant(
        "counted releases never spend",
        "settling",
        (
            CLAIMING,
            SETTLE,
            f"attempts = row.attempts - 1 if row is not None else 0\n    {SETTLE}\n"
            "    if job is not None and settlement.verb is Verb.RELEASE:\n"
            "        job = replace(job, attempts=attempts)",
        ),
        (CLAIMING, "from protojobs.entropy import fresh_id\n", WITH_REPLACE_IN_CLAIMING),
    ),
    mutant(
        "a cancel mark is forgotten at the end of the run",
        "settling transitions",
        (
            CLAIMING,
            SETTLE,
            f"job = job and replace(job, cancel_requested_at=None)\n    {SETTLE}",
        ),
        (CLAIMING, "from protojobs.entropy import fresh_id\n", WITH_REPLACE_IN_CLAIMING),
    ),
    mutant(
        "a cancel mark undoes work that was done",
        "settling transitions",
        (
            CLAIMING,
            "        if row is not None:\n            state.move(row, _COMPLETE, _COMPLETED, now)\n",
            "        if row is not None and row.cancel_requested_at is not None:\n"
            "            state.move(row, Verb.CANCEL, JobState.CANCELLED, now)\n"
            "            return Settled(settlement.id, _APPLIED, JobState.CANCELLED, row.available_at)\n"
            "        if row is not None:\n            state.move(row, _COMPLETE, _COMPLETED, now)\n",
        ),
    ),
    mutant(
        "a failure leaves no row in failed_jobs",
        "failures transitions",
        (STATE, "        elif row.failed_id is None:\n", "        elif False:\n"),
    ),
    # enqueueing
    mutant(
        "a job sent again replaces the first",
        "enqueueing",
        (CLAIMING, "is_known = job.id in known or job.id in new", "is_known = job.id in new"),
    ),
    mutant(
        "an id twice in one batch is not noticed",
        "enqueueing",
        (CLAIMING, "is_known = job.id in known or job.id in new", "is_known = job.id in known"),
    ),
    mutant(
        "a batch that is too long is cut",
        "enqueueing",
        (DRIVER, "        rules.check_jobs(jobs)\n", "        jobs = jobs[:1000]\n        rules.check_jobs(jobs)\n"),
    ),
    mutant(
        "nobody hears of a new job",
        "waiting",
        (
            CLAIMING,
            "        state.add(new[job_id])\n    state.wake()\n",
            "        state.add(new[job_id])\n",
        ),
    ),
    mutant(
        "nobody hears of a queue that goes on",
        "waiting",
        (PEOPLE, "    state.wake()\n    return True\n", "    return True\n"),
    ),
    # people
    mutant(
        "a retry by hand forgets the settings",
        "failures",
        (
            PEOPLE,
            RETRY,
            f"{RETRY}\n"
            "    if row is not None and job is not before:\n"
            "        row.job = type(row.job)(\n"
            "            id=row.job.id, queue=row.job.queue, job_name=row.job.job_name,\n"
            "            job_class=row.job.job_class, data=row.job.data, priority=row.job.priority,\n"
            "        )",
        ),
    ),
    mutant(
        "a retry by hand keeps the spent attempts",
        "failures",
        (
            PEOPLE,
            RETRY,
            f"{RETRY}\n    if row is not None and job is not None:\n        job = replace(job, attempts=row.attempts)",
        ),
        (PEOPLE, "from msgspec import convert\n", "from msgspec import convert\nfrom msgspec.structs import replace\n"),
    ),
    mutant(
        "a retry by hand leaves the failed_jobs row",
        "failures",
        (
            STATE,
            "        if job.failed is None:\n            self.drop_failure(row)\n        elif row.failed_id is None:\n",
            "        if job.failed is not None and row.failed_id is None:\n",
        ),
    ),
    mutant(
        "a cancel ends a job that runs",
        "administering",
        (
            PEOPLE,
            "    job, answer = rules.cancel(before, reason, now)\n",
            "    job, answer = rules.cancel(before, reason, now)\n"
            "    if job is not None and answer is CancelAnswer.REQUESTED:\n"
            '        job = replace(job, status=JobState.CANCELLED, reserved_by="", processed_at=now)\n',
        ),
        (PEOPLE, "from msgspec import convert\n", "from msgspec import convert\nfrom msgspec.structs import replace\n"),
    ),
    mutant(
        "clear takes a job that runs",
        "administering transitions",
        (PEOPLE, "if (row.state, Verb.CLEAR) in TRANSITIONS)", "if row.state is not JobState.MOVING)"),
        REMOVE_CHECK,
    ),
    mutant(
        "prune takes a live job",
        "administering transitions",
        (
            PEOPLE,
            "    return convert(_remove(state, Verb.PRUNE, prunable, limit), Pruned)\n",
            "    old = now - timedelta(seconds=completed_older_than or 0)\n"
            "    live = (JobState.PENDING, JobState.PROCESSING)\n"
            "    every = list(state.rows.values()) if completed_older_than is not None else []\n"
            "    rows = [*prunable, *(row for row in every if row.state in live and row.available_at < old)]\n"
            "    return convert(_remove(state, Verb.PRUNE, rows, limit), Pruned)\n",
        ),
        REMOVE_CHECK,
    ),
    mutant(
        "prune begins with those that ended last",
        "administering",
        (
            PEOPLE,
            'in state.ended[end].below((now - timedelta(seconds=age), ""))',
            'in reversed(list(state.ended[end].below((now - timedelta(seconds=age), ""))))',
        ),
    ),
    mutant(
        "stats count what was removed",
        "counting",
        (
            STATE,
            "        self.drop_failure(row)\n        del self",
            "        queue.counts[row.state] += 1\n        self.drop_failure(row)\n        del self",
        ),
    ),
    mutant(
        "stats are off by one",
        "counting",
        (
            "inspection.py",
            "    return convert(counts, Stats)\n",
            '    return convert(counts | {"completed": max(0, counts["completed"] - 1)}, Stats)\n',
        ),
    ),
    mutant(
        "find shows the last job of a page again",
        "listing",
        (
            "inspection.py",
            "        cursor = job_id\n",
            "        cursor = job_id if len(jobs) < limit else cursor\n",
        ),
    ),
    # transfer
    mutant(
        "imported jobs forget their attempts",
        "transferring",
        (TRANSFER, '"reserved_by": ""}', '"reserved_by": "", "attempts": 0}'),
    ),
    mutant(
        "a drop takes what another token moves",
        "transferring",
        (
            TRANSFER,
            "rows = [row for row in rows if row.state is JobState.MOVING and row.export_key in moving]",
            "rows = [row for row in rows if row.state is JobState.MOVING]",
        ),
        (
            TRANSFER,
            "        moving.remove(row.export_key)\n",
            "        if row.export_key in moving:\n            moving.remove(row.export_key)\n",
        ),
    ),
    # honesty
    mutant(
        "transactions are claimed and not there",
        "honesty",
        (DRIVER, "Capabilities(cross_process=False,", "Capabilities(transactions=True, cross_process=False,"),
    ),
    mutant(
        "transactions are there and not claimed",
        "honesty",
        (
            DRIVER,
            "    def setup(self) -> None:\n",
            "    def enqueue_in(self, transaction, jobs, *, on_commit=None):\n"
            "        return self.enqueue(jobs)\n\n"
            "    def complete_in(self, transaction, claim):\n"
            "        pass\n\n"
            "    def setup(self) -> None:\n",
        ),
    ),
    mutant(
        "unique keys are claimed before their time",
        "honesty",
        (DRIVER, "Capabilities(cross_process=False,", "Capabilities(unique_keys=True, cross_process=False,"),
    ),
    # every verb
    *RULE_MUTANTS,
    # what is seen
    *OBSERVING_MUTANTS,
    # schedules
    *SCHEDULE_MUTANTS,
    # results
    *RESULT_MUTANTS,
)
