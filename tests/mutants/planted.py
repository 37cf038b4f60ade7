"""The mutants: small faults planted in a driver, most in that of memory, which the conformance kit must catch by name.

A mutant replaces pieces of the source. Each piece must be there exactly once, so that a mutant which the driver has
outgrown is an error and not one that is "caught" for nothing. `first` names the concerns whose tests should see it;
they run first.
"""

from __future__ import annotations

from mutants.mutant import mutant
from mutants.planted_observing import OBSERVING_MUTANTS
from mutants.planted_rules import RULE_MUTANTS
from mutants.planted_schedules import SCHEDULE_MUTANTS

DRIVER, STATE, PEOPLE, TRANSFER = "driver.py", "state.py", "administration.py", "transfer.py"

FENCE = "if row is None or row.claim_seq != claim.claim_seq or row.reserved_by != claim.reserved_by:"
SETTLED = "was_settled = row is not None and row.claim_seq == said.claim_seq and not row.reserved_by"
REMOVE_CHECK = (STATE, "if None not in TRANSITIONS.get((row.state, verb), ()):", "if False:")

MUTANTS = (
    # ------------------------------------------------------------------------------------------------ the fence
    mutant(
        "the fence forgets claim_seq",
        "fencing",
        (DRIVER, FENCE, "if row is None or row.reserved_by != claim.reserved_by:"),
    ),
    mutant(
        "the fence forgets the holder",
        "fencing",
        (DRIVER, FENCE, "if row is None or row.claim_seq != claim.claim_seq:"),
    ),
    mutant(
        "a claim without holder passes the fence",
        "fencing",
        (DRIVER, "return row if row.reserved_by else None", "return row"),
    ),
    mutant(
        "a repeated settlement is taken for stale",
        "fencing",
        (DRIVER, "_REPEATED if was_settled else _STALE", "_STALE"),
    ),
    mutant(
        "a repeated release is applied again",
        "fencing settling",
        (
            DRIVER,
            "            row = self.state.rows.get(said.id)\n",
            "            row = self.state.rows.get(said.id)\n"
            "            if row is not None and row.claim_seq == said.claim_seq and row.state is JobState.PENDING:\n"
            "                row.attempts -= said.verb is Verb.RELEASE\n",
        ),
    ),
    mutant(
        "a lost claim is taken for a repeated one",
        "fencing",
        (DRIVER, SETTLED, "was_settled = row is not None and not row.reserved_by"),
    ),
    mutant(
        "another's claim is taken for a repeated one",
        "fencing",
        (DRIVER, SETTLED, "was_settled = row is not None and row.claim_seq == said.claim_seq"),
    ),
    mutant(
        "reclaim keeps claim_seq",
        "fencing leases",
        (DRIVER, "        row.reclaims += 1\n        row.claim_seq += 1\n", "        row.reclaims += 1\n"),
    ),
    mutant(
        "a retry by hand keeps claim_seq",
        "fencing failures",
        (PEOPLE, "        row.claim_seq += 1\n", ""),
    ),
    mutant("an export keeps claim_seq", "transferring fencing", (TRANSFER, "        row.claim_seq += 1\n", "")),
    mutant(
        "progress of a lost claim is stored",
        "fencing",
        (
            DRIVER,
            "if (job := self._current(claim)) is not None:",
            "if (job := self.state.rows.get(claim.id)) is not None:",
        ),
    ),
    mutant(
        "a result counts only while its worker's row stands",
        "fencing",
        (
            DRIVER,
            "return row if row.reserved_by else None",
            "return row if row.reserved_by in self.state.workers else None",
        ),
    ),
    # ------------------------------------------------------------------------------------------------ order and claims
    mutant(
        "priority is turned round",
        "claiming",
        (STATE, "dict(sorted(self.lanes.items(), reverse=True))", "dict(sorted(self.lanes.items()))"),
    ),
    mutant(
        "the last job goes first",
        "claiming delays",
        (DRIVER, "for _, job_id in lane.below(bound):", "for _, job_id in reversed(list(lane.below(bound))):"),
    ),
    mutant(
        "queues go by name and not as asked",
        "claiming",
        (DRIVER, "for name in dict.fromkeys(queues):", "for name in sorted(set(queues)):"),
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
            "            self._standing(worker)\n            now = self.now()\n",
            "            self._standing(worker)\n            self.reclaim(limit)\n            now = self.now()\n",
        ),
    ),
    mutant(
        "two claims at once read the same due jobs",
        "racing claiming",
        (
            DRIVER,
            "            for row in lent:\n                row.attempts += 1\n",
            "            self.state.lock.release()  # the lock is let go between reading and lending\n"
            "            SYSTEM_CLOCK.sleep(0.002)\n"
            "            self.state.lock.acquire()\n"
            "            for row in lent:\n"
            "                if row.state is not JobState.PENDING:\n"
            "                    row.state, row.reserved_by = JobState.PROCESSING, worker\n"
            "                    row.claim_seq += 1\n"
            "                    self.state.holders[worker][row.job.id] = row\n"
            "                    continue\n"
            "                row.attempts += 1\n",
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
        (DRIVER, "return now + timedelta(seconds=delay) if delay else now", "return now"),
    ),
    mutant(
        "more is lent than the limit",
        "claiming",
        (DRIVER, "if len(lent) >= limit or", "if len(lent) > limit or"),
    ),
    mutant(
        "a last attempt waits beyond the slots",
        "claiming",
        (DRIVER, "row.attempts + 1 > row.job.max_retries", "row.attempts > row.job.max_retries"),
    ),
    mutant(
        "the bytes of a claim are not bounded", "claiming", (DRIVER, "if size > BATCH_BYTES_MAX and lent:", "if False:")
    ),
    mutant(
        "a pause is seen late",
        "claiming transferring",
        (
            DRIVER,
            "if queue is not None and not queue.is_paused:",
            'if queue is not None and not vars(self).setdefault("seen", {}).setdefault(name, queue.is_paused):',
        ),
    ),
    # ------------------------------------------------------------------------------------------------ leases
    mutant(
        "the dead are lent jobs",
        "claiming leases",
        (
            DRIVER,
            "            self._standing(worker)\n            now = self.now()\n",
            "            now = self.now()\n",
        ),
    ),
    mutant(
        "a heartbeat revives a lease that is gone",
        "leases",
        (
            DRIVER,
            "            row = self._standing(worker)\n",
            "            if worker not in self.state.workers:\n"
            "                self.register(WorkerInfo(\n"
            '                    id=worker, host="", pid=0, queues=(), concurrency=1, lease_s=60.0\n'
            "                ))\n"
            "            row = self._standing(worker)\n",
        ),
    ),
    mutant(
        "reclaim does not look at heartbeats",
        "leases",
        (
            DRIVER,
            "if row.lease_ends_at <= now}",
            "if row.started_at + timedelta(seconds=row.lease_s) <= now}",
        ),
    ),
    mutant(
        "reclaim does not check the lapse again in the deleting step",
        "racing leases",
        (
            DRIVER,
            "        with self.state.lock:\n            now, state = self.now(), self.state\n"
            "            if until is not None and now > until:\n                return Reclaimed(has_more=True)\n"
            "            lapsed = {name: row for name, row in state.workers.items() if row.lease_ends_at <= now}\n",
            "        now, state = self.now(), self.state\n"
            "        if until is not None and now > until:\n            return Reclaimed(has_more=True)\n"
            "        lapsed = {name: row for name, row in list(state.workers.items()) if row.lease_ends_at <= now}\n"
            "        SYSTEM_CLOCK.sleep(0.002)\n"
            "        with self.state.lock:\n"
            "            lapsed = {name: row for name, row in lapsed.items() if name in state.workers}\n",
        ),
    ),
    mutant(
        "reclaim has no end, and may strike after an outage",
        "leases",
        (
            DRIVER,
            "            if until is not None and now > until:\n",
            "            if until is not None and False:\n",
        ),
    ),
    mutant(
        "orphans are not taken back",
        "leases waiting",
        (
            DRIVER,
            "ownerless = sorted(state.holders.keys() - state.workers.keys(), ",
            "ownerless = sorted(state.holders.keys() & lapsed.keys(), ",
        ),
    ),
    mutant(
        "a lost lease spends the attempt",
        "leases",
        (
            DRIVER,
            "        elif row.returns < RETURNS_FREE:\n            row.attempts -= 1\n        row.returns += 1\n",
            "        row.returns += 1\n",
        ),
    ),
    mutant(
        "lost leases never spend an attempt",
        "leases",
        (
            DRIVER,
            "        elif row.returns < RETURNS_FREE:\n            row.attempts -= 1\n        row.returns += 1\n",
            "        else:\n            row.attempts -= 1\n        row.returns += 1\n",
        ),
    ),
    mutant(
        "a suspect counts a crash though it ran isolated",
        "leases",
        (DRIVER, "if worker is not None and not worker.isolates and row", "if worker is not None and row"),
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
    # ------------------------------------------------------------------------------------------------ settling
    mutant(
        "a release spends the attempt",
        "settling",
        (DRIVER, "is_unspent = verb is _SNOOZE or verb is _RELEASE", "is_unspent = verb is _SNOOZE"),
    ),
    mutant(
        "counted releases never spend",
        "settling",
        (DRIVER, "            is_unspent = row.returns < RETURNS_FREE\n", ""),
    ),
    mutant(
        "a cancel mark is forgotten at the end of the run",
        "settling transitions",
        (DRIVER, "if is_marked and to is not _COMPLETED:", "if False:"),
    ),
    mutant(
        "a cancel mark undoes work that was done",
        "settling transitions",
        (DRIVER, "if is_marked and to is not _COMPLETED:", "if is_marked:"),
    ),
    mutant(
        "a failure leaves no row in failed_jobs",
        "failures transitions",
        (DRIVER, "        if to is _FAILED:\n", "        if False:\n"),
    ),
    # ------------------------------------------------------------------------------------------------ enqueueing
    mutant(
        "a job sent again replaces the first",
        "enqueueing",
        (DRIVER, "is_known = job.id in known or job.id in new", "is_known = job.id in new"),
    ),
    mutant(
        "an id twice in one batch is not noticed",
        "enqueueing",
        (DRIVER, "is_known = job.id in known or job.id in new", "is_known = job.id in known"),
    ),
    mutant(
        "a batch that is too long is cut",
        "enqueueing",
        (DRIVER, "        check_batch(jobs)\n        sizes", "        jobs = jobs[:1000]\n        sizes"),
    ),
    mutant(
        "nobody hears of a new job",
        "waiting",
        (
            DRIVER,
            "                self.state.add(new[job_id])\n            self.state.ring()\n",
            "                self.state.add(new[job_id])\n",
        ),
    ),
    mutant(
        "nobody hears of a queue that goes on",
        "waiting",
        (PEOPLE, "            self.state.ring()\n            return True\n", "            return True\n"),
    ),
    # ------------------------------------------------------------------------------------------------ people
    mutant(
        "a retry by hand forgets the settings",
        "failures",
        (
            PEOPLE,
            "        self.state.drop_failure(row)\n",
            "        self.state.drop_failure(row)\n"
            "        row.job = type(row.job)(\n"
            "            id=row.job.id, queue=row.job.queue, job_name=row.job.job_name,\n"
            "            job_class=row.job.job_class, data=row.job.data, priority=row.job.priority,\n"
            "        )\n",
        ),
    ),
    mutant(
        "a retry by hand keeps the spent attempts",
        "failures",
        (PEOPLE, "row.attempts = row.crashes = row.returns", "row.crashes = row.returns"),
    ),
    mutant(
        "a retry by hand leaves the failed_jobs row",
        "failures",
        (PEOPLE, "        self.state.drop_failure(row)\n", ""),
    ),
    mutant(
        "a cancel ends a job that runs",
        "administering",
        (PEOPLE, "if row.state is JobState.PROCESSING:", "if False:"),
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
            "            rows = list(islice(prunable, limit + 1))\n",
            "            rows = list(islice(prunable, limit + 1))\n"
            "            if completed_older_than is not None:\n"
            "                old = now - timedelta(seconds=completed_older_than)\n"
            "                live = (JobState.PENDING, JobState.PROCESSING)\n"
            "                every = self.state.rows.values()\n"
            "                rows += [row for row in every if row.state in live and row.available_at < old]\n",
        ),
        REMOVE_CHECK,
    ),
    mutant(
        "prune begins with those that ended last",
        "administering",
        (
            PEOPLE,
            'in self.state.ended[state].below((now - timedelta(seconds=age), ""))',
            'in reversed(list(self.state.ended[state].below((now - timedelta(seconds=age), ""))))',
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
            "completed=sum(queue.counts[JobState.COMPLETED] for queue in queues),",
            "completed=max(0, sum(queue.counts[JobState.COMPLETED] for queue in queues) - 1),",
        ),
    ),
    mutant(
        "find shows the last job of a page again",
        "listing",
        (
            "inspection.py",
            "                cursor = job_id\n",
            "                cursor = job_id if len(found) < limit else cursor\n",
        ),
    ),
    # ------------------------------------------------------------------------------------------------ transfer
    mutant("imported jobs forget their attempts", "transferring", (TRANSFER, "attempts=job.attempts,", "attempts=0,")),
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
            "                moving.remove(row.export_key)\n",
            "                if row.export_key in moving:\n                    moving.remove(row.export_key)\n",
        ),
    ),
    # ------------------------------------------------------------------------------------------------ honesty
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
    # ------------------------------------------------------------------------------------------------ every verb
    *RULE_MUTANTS,
    # ------------------------------------------------------------------------------------------------ what is seen
    *OBSERVING_MUTANTS,
    # ------------------------------------------------------------------------------------------------ schedules
    *SCHEDULE_MUTANTS,
)
