"""Every verb of the port, called with something harmless: for what is asked of all of them alike."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from protojobs.clock import SYSTEM_CLOCK, within
from protojobs.errors import LeaseLost
from protojobs.port.driver import Store
from protojobs.port.lifecycle import Verb
from protojobs.port.records import Fence, JobFilter, Settlement
from protojobs.port.results import Results
from protojobs.port.rules import new_row
from protojobs.testing.conformance.plans import MINUTE, firing_of, new_schedule
from protojobs.testing.conformance.steps import fresh_ids, join, new_job

__all__ = ["VERBS", "outcome_of", "within_limit"]

Call = Callable[[Store], object]

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def _fence() -> Fence:
    return Fence(id=fresh_ids(1)[0], claim_seq=1, reserved_by="nobody")


def _settlement() -> Settlement:
    fence = _fence()
    return Settlement(id=fence.id, claim_seq=1, reserved_by=fence.reserved_by, verb=Verb.COMPLETE)


# Without `setup`, `teardown` and `close`, which are no steps among the jobs.
VERBS: dict[str, Call] = {
    "now": lambda store: store.now(),
    "enqueue": lambda store: store.enqueue([new_job()]),
    "register": join,
    "heartbeat": lambda store: store.heartbeat("nobody", {_fence(): 0.5}),
    "leave": lambda store: store.leave("nobody"),
    "reclaim": lambda store: store.reclaim(10),
    "claim": lambda store: store.claim("nobody", ["q"], slots=1, limit=1),
    "settle": lambda store: store.settle([_settlement()]),
    "settle_and_claim": lambda store: store.settle_and_claim("nobody", [_settlement()], ["q"], slots=1, limit=1),
    "held": lambda store: store.held("nobody"),
    "wait": lambda store: store.wait(["q"], 0.1),
    "get": lambda store: store.get(fresh_ids(1)),
    "find": lambda store: store.find(JobFilter(queue="q")),
    "failed": lambda store: store.failed(),
    "get_results": lambda store: store.get_results(fresh_ids(1)) if isinstance(store, Results) else [],
    "get_failed": lambda store: store.get_failed(fresh_ids(1)),
    "stats": lambda store: store.stats(),
    "queues": lambda store: store.queues(),
    "workers": lambda store: store.workers(),
    "cancel": lambda store: store.cancel(fresh_ids(1)),
    "retry_failed": lambda store: store.retry_failed(fresh_ids(1)),
    "forget_failed": lambda store: store.forget_failed(fresh_ids(1)),
    "clear": lambda store: store.clear("another"),
    "pause": lambda store: store.pause("another"),
    "resume": lambda store: store.resume("another"),
    "prune": lambda store: store.prune(completed_older_than=60, failed_older_than=60),
    "export_jobs": lambda store: store.export_jobs("token"),
    "import_jobs": lambda store: store.import_jobs([new_row(new_job("another"), LONG_AGO)]),
    "drop_exported": lambda store: store.drop_exported("token", fresh_ids(1)),
    "save_schedule": lambda store: store.save_schedule(new_schedule(fresh_ids(1)[0], due=LONG_AGO), version=0),
    "get_schedules": lambda store: store.get_schedules(["none"]),
    "list_schedules": lambda store: store.list_schedules(),
    "due_schedules": lambda store: store.due_schedules(10),
    "fire": lambda store: store.fire([firing_of(new_schedule("none", due=LONG_AGO + MINUTE))]),
    "remove_schedule": lambda store: store.remove_schedule("none"),
}


def outcome_of(call: Call, store: Store) -> Exception | None:
    """What the verb raises; None for an answer. LeaseLost is the answer to who asks as nobody."""
    try:
        call(store)
    except LeaseLost:
        return None
    except Exception as error:  # noqa: BLE001  the test looks at it
        return error
    return None


def within_limit(call: Call, store: Store, limit_s: float) -> tuple[Exception | None, float]:
    """As `outcome_of`, for a caller that waits no longer than so many seconds; and how many it took."""
    began = SYSTEM_CLOCK.monotonic()
    with within(limit_s):
        outcome = outcome_of(call, store)
    return outcome, SYSTEM_CLOCK.monotonic() - began
