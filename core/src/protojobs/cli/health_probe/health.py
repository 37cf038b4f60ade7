"""The health of a worker, or of a supervisor and its workers: what the probe, systemd and `protojobs health` show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from protojobs.cli.showing.text import length
from protojobs.clock import Clock
from protojobs.stopping import StopToken
from protojobs.worker.reports.health import STILL_MIN_S, Condition, WorkerHealth

if TYPE_CHECKING:  # `protojobs health` is quick: it loads no supervisor
    from protojobs.cli.supervising.supervisor import Supervisor

__all__ = ["Health", "supervisor_health", "worker_health"]

STARTING = "it is not registered in the store yet"
STOPPING = "it is stopping"


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What the probe answers. Live: a restart would mend nothing. Ready: it takes jobs."""

    state: Literal["starting", "working", "stopping"]
    is_live: bool
    is_ready: bool
    reasons: tuple[str, ...] = ()  # why it is not live or not ready
    workers: tuple[Condition, ...] = ()

    @property
    def summary(self) -> str:
        """One line for people: `working, 3 of 8 slots busy`."""
        slots, running = sum(one.slots for one in self.workers), sum(one.running for one in self.workers)
        busy = f", {running:,} of {slots:,} slots busy" if self.workers else ""
        return f"{self.state}{busy}" + "".join(f"; {reason}" for reason in self.reasons)


def worker_health(vitals: WorkerHealth, stop: StopToken, clock: Clock) -> Health:
    """The health of this process, a worker. Asks neither the store nor any lock that a job could hold."""
    condition = vitals.condition(clock.monotonic())
    if condition is None:
        return Health(state="starting", is_live=True, is_ready=False, reasons=(STARTING,))
    return _health([condition], _troubles(condition), stop)


def supervisor_health(supervisor: Supervisor, stop: StopToken, clock: Clock) -> Health:
    """The health of a supervisor and its workers.

    Live while the supervisor looks after them, and none of them says that its own threads stand still: what has died or
    fallen silent is the supervisor's to restart. Ready when each is.
    """
    reasons: list[str] = []
    if (still_s := clock.monotonic() - supervisor.looked_at) > STILL_MIN_S:
        reasons.append(f"the supervisor has not looked after its workers for {length(still_s)}")
    conditions: list[Condition] = []
    for process in supervisor.processes:
        condition = None if process is None or process.last_sign is None else process.last_sign.condition
        if condition is None:
            reasons.append("a worker is being started")
            continue
        name = f"worker {process.pid}: " if process is not None else ""
        reasons += [name + trouble for trouble in _troubles(condition)]
        if process is not None and process.is_lease_renewed:
            reasons.append(f"{name}it gives no sign of life")
        conditions.append(condition)
    health = _health(conditions, reasons, stop)
    if still_s > STILL_MIN_S:
        return msgspec.structs.replace(health, is_live=False)
    return health


def _health(conditions: list[Condition], reasons: list[str], stop: StopToken) -> Health:
    state: Literal["working", "stopping"] = "stopping" if stop.level else "working"
    return Health(
        state=state,
        is_live=all(condition.is_live for condition in conditions),
        is_ready=not reasons and not stop.level,
        reasons=(*reasons, STOPPING) if stop.level else tuple(reasons),
        workers=tuple(conditions),
    )


def _troubles(condition: Condition) -> list[str]:
    troubles: list[str] = []
    if not condition.is_live:
        part, still_s = max(
            ("the claim loop", condition.loop_s), ("the heartbeat thread", condition.beat_s), key=lambda one: one[1]
        )
        troubles.append(f"{part} has stood still for {length(still_s)}")
    if not condition.is_ready:
        troubles.append(f"the store has not answered for {length(condition.answer_s)}")
    return troubles
