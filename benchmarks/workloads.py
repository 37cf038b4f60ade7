"""The measurements. Each takes a scene with an empty store and answers its value, and what went wrong, if anything."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import backlogs
import counted
import stores
from processes import Failed, Scene, resident_mib, side, until, workers

IDLE_S = 0.5  # a worker that has had nothing to do for so long is idle
SETTLE_S = 20.0
DEEP = ("sqlite", "postgresql", "valkey")


@dataclass(frozen=True)
class Workload:
    """How its value reads, and whether more is better."""

    unit: str
    title: str
    is_rate: bool = True
    kinds: tuple[str, ...] = ()  # of stores; () = all
    is_usual: bool = True  # else it takes minutes, and is measured when it is named


WORKLOADS = {
    "push": Workload("jobs/s", "push, one by one"),
    "bulk": Workload("jobs/s", "push in bulk"),
    "drain1": Workload("jobs/s", "drain, 1 worker"),
    "drain2": Workload("jobs/s", "drain, 2 workers", kinds=("sqlite", "postgresql", "mariadb", "valkey")),
    "latency": Workload("ms", "idle worker: push to start, p50", is_rate=False),
    "memory": Workload("MiB", "worker's memory after the drain", is_rate=False),
    "depth": Workload("share", "drain behind a deep backlog, by that behind a shallow one", kinds=DEEP, is_usual=False),
    "opentx": Workload(
        "share", "drain beside an open transaction, by that without", kinds=("postgresql",), is_usual=False
    ),
}

Values = dict[str, float]


def push(scene: Scene, jobs: int, seconds: float) -> dict[str, Values]:
    """One by one from one process, each durable when `push` returns."""
    return {"push": _pushed(scene, "push", jobs, seconds)}


def bulk(scene: Scene, jobs: int, seconds: float) -> dict[str, Values]:
    """Many at once, from one process."""
    return {"bulk": _pushed(scene, "bulk", jobs, seconds)}


def drain1(scene: Scene, jobs: int, seconds: float) -> dict[str, Values]:
    """All there is, by one worker process; and the memory that it has then."""
    return _drained(scene, jobs, 1)


def drain2(scene: Scene, jobs: int, seconds: float) -> dict[str, Values]:
    """All there is, by two worker processes that start together."""
    drained = _drained(scene, jobs, 2)
    return {"drain2": drained["drain2"]}


def latency(scene: Scene, jobs: int, seconds: float) -> dict[str, Values]:
    """From before the call of push to the job's first line, twenty jobs a second."""
    samples = max(10, min(100, jobs // 50))
    with side(scene) as one, workers(scene, one, 1) as running:
        one.ask("push", 1, seconds)
        until(scene, lambda: counted.count(scene.folder) == 1, running, "the worker's first job")
        time.sleep(IDLE_S)
        one.ask("stamps", samples)
        stamped = counted.STARTED
        until(scene, lambda: counted.count(scene.folder, stamped) >= samples, running, "all jobs started")
        one.ask("settle", SETTLE_S)
    waits = sorted(wait / 1e6 for wait in counted.waits(scene.folder))
    cut = statistics.quantiles(waits, n=100, method="inclusive")
    return {"latency": {"value": cut[49], "p95": cut[94], "p99": cut[98], **_wrong(samples, len(waits))}}


MEASURES: dict[str, Callable[[Scene, int, float], dict[str, Values]]] = {
    "push": push,
    "bulk": bulk,
    "drain1": drain1,
    "drain2": drain2,
    "latency": latency,
    "depth": backlogs.depth,
    "opentx": backlogs.opentx,
}


def measured_by(workload: str) -> str:
    """Memory is read at the end of a drain."""
    return "drain1" if workload == "memory" else workload


def _pushed(scene: Scene, how: str, jobs: int, seconds: float) -> Values:
    with side(scene) as one:
        one.ask("push", 1, seconds)  # connections are open, statements compiled
        done = one.ask(how, jobs, seconds)
        stored = one.ask("left")["left"] - 1
    return {"value": done["jobs"] / done["seconds"], "jobs": done["jobs"], **_wrong(int(done["jobs"]), int(stored))}


def _drained(scene: Scene, jobs: int, count: int) -> dict[str, Values]:
    with side(scene) as one:
        pushed = int(one.ask("bulk", jobs, scene.limit_s / 2)["jobs"])
        stores.rest(scene.kind, scene.url)
        with workers(scene, one, count) as running:
            until(scene, lambda: counted.count(scene.folder) >= pushed, running, f"{pushed} jobs run")
            settled = one.ask("settle", SETTLE_S)
            memory = sum(resident_mib(process.pid) for process in running)
    moments = counted.moments(scene.folder)  # after the workers' end: nothing comes any more
    if settled["left"]:
        raise Failed(f"{settled['left']} jobs were still unfinished {SETTLE_S:g} s after the last one had run")
    began, end, tenth = moments[0], max(moments[-1], int(settled["at_ns"])), len(moments) // 10
    steady = moments[tenth : len(moments) - tenth]
    drain = {
        "value": pushed / max(1e-9, (end - began) / 1e9),  # "acked"
        "ran": (len(moments) - 1) / max(1e-9, (moments[-1] - began) / 1e9),
        "steady": (len(steady) - 1) / max(1e-9, (steady[-1] - steady[0]) / 1e9),
        "jobs": pushed,
        **_wrong(pushed, len(moments)),
    }
    return {f"drain{count}": drain, "memory": {"value": memory}}


def _wrong(wanted: int, found: int) -> Values:
    return {"lost": max(0, wanted - found), "doubled": max(0, found - wanted)}
