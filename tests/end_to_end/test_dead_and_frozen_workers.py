"""Workers that are killed, and workers that were only asleep: real processes, real signals."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from crew import Crew, wait_for
from worker_process import wait_alone, wait_at_gate

from protojobs import JobQueue
from protojobs.port.driver import Store
from protojobs.port.lifecycle import Verb
from protojobs.port.records import Settlement, SettleStatus, WorkerInfo

LEASE_S = 3.0
TEN = 10


def test_a_job_whose_worker_was_killed_runs_again_within_lease_plus_2_s(
    store: Store, store_url: str, tmp_path: Path
) -> None:
    queue = JobQueue(store)
    crew = Crew(store_url, tmp_path, lease_s=LEASE_S)
    try:
        job_id = queue.push(wait_at_gate.bind(False))
        doomed = crew.hire()
        wait_for("the first run", lambda: crew.entries("started"))
        crew.hire()
        wait_for("the second worker", lambda: len(crew.entries("ready")) == 2)
        # It reclaims after three good beats over a third of the lease; in production workers are older than that.
        wait_for("its beats", lambda: _age_s(store) > LEASE_S / 2)
        crew.kill(doomed)
        took_s = wait_for("the second run", lambda: len(crew.entries("started")) == 2)
        crew.open_gate()
        wait_for("the end", lambda: queue.stats("work").completed == 1)
    finally:
        crew.dismiss()
    assert took_s <= LEASE_S + 2
    record = queue.get(job_id)
    assert record is not None
    assert (record.attempts, record.returns, record.reclaims) == (1, 1, 1)
    assert [entry["id"] for entry in crew.entries("job.lost")] == [job_id]


@pytest.mark.parametrize("is_claimed_again", [False, True], ids=["before the next claim", "after the next claim"])
def test_late_results_of_a_frozen_worker_are_stale(
    store: Store, store_url: str, tmp_path: Path, is_claimed_again: bool
) -> None:
    queue = JobQueue(store)
    crew = Crew(store_url, tmp_path, lease_s=2.0)
    try:
        ids = set(queue.push_many(wait_at_gate.bind(fails) for fails in [False] * TEN + [True] * TEN))
        frozen = crew.hire(concurrency=2 * TEN)
        wait_for("all runs", lambda: len(crew.entries("started")) == 2 * TEN)
        frozen.send_signal(signal.SIGSTOP)
        lost: set[str] = set()
        wait_for("the reclaim", lambda: lost.update(job.id for job in store.reclaim(100).jobs) or lost == ids)
        if is_claimed_again:
            store.register(WorkerInfo(id="other", host="h", pid=1, queues=("work",), concurrency=20, lease_s=60))
            claims = store.claim("other", ["work"], slots=2 * TEN, limit=2 * TEN)
            assert {claim.id for claim in claims} == ids
        store.pause("work")  # the woken worker shall not take them again while we look
        crew.open_gate()
        frozen.send_signal(signal.SIGCONT)
        wait_for("the late results", lambda: len(crew.entries("job.late")) == 2 * TEN)

        assert {entry["id"] for entry in crew.entries("job.late")} == ids  # 10 of 10 successes, 10 of 10 failures
        assert not crew.entries("job.processed")
        assert not crew.entries("job.retrying")
        records = store.get(sorted(ids))
        if is_claimed_again:
            assert {(r.status, r.reserved_by, r.claim_seq) for r in records} == {("processing", "other", 3)}
            done = [Settlement(id=c.id, claim_seq=c.claim_seq, reserved_by="other", verb=Verb.COMPLETE) for c in claims]
            assert {answer.status for answer in store.settle(done)} == {SettleStatus.APPLIED}
        else:
            assert {(r.status, r.reserved_by, r.claim_seq, r.attempts) for r in records} == {("pending", "", 2, 0)}
    finally:
        crew.dismiss()


def test_an_exclusive_run_of_a_frozen_worker_is_cut_as_soon_as_it_wakes(
    store: Store, store_url: str, tmp_path: Path
) -> None:
    queue = JobQueue(store)
    crew = Crew(store_url, tmp_path, lease_s=2.0)
    try:
        job_id = queue.push(wait_alone.bind())
        frozen = crew.hire()
        wait_for("the run", lambda: crew.entries("started"))
        frozen.send_signal(signal.SIGSTOP)
        wait_for("the reclaim", lambda: [job.id for job in store.reclaim(100).jobs] == [job_id])
        store.pause("work")  # the woken worker shall not take it again while we look
        assert not crew.entries("cut")
        frozen.send_signal(signal.SIGCONT)
        # On a machine with no time for its thread the run counts as stuck after half a second, and the process ends.
        took_s = wait_for("its end", lambda: crew.entries("cut") or frozen.poll() is not None)
        wait_for("word of it", lambda: crew.entries("job.released") or frozen.poll() is not None)
    finally:
        crew.dismiss()
    assert took_s < 3.0
    assert not crew.entries("job.late")
    record = queue.get(job_id)
    assert record is not None
    assert (record.status, record.attempts, record.claim_seq) == ("pending", 0, 2)


def _age_s(store: Store) -> float:
    youngest = max(worker.started_at for worker in store.workers())
    return (store.now() - youngest).total_seconds()
