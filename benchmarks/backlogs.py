"""Two drains of one subject, and how the second compares: behind a million jobs, or beside an open transaction."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import psycopg

import counted
import stores
from filling import Backlog, fill
from processes import Failed, Scene, Side, side, until, workers
from protojobs import create_driver
from stores import servers
from subjects import OURS

RATE_MAX = 40_000  # jobs a second; so many lie ready for each second of a drain that is to last for a while
PUSHED_MIN = 5_000  # jobs a second, of a limit that fills its store; a slower one has failed
LOOK_S = 0.05


def depth(scene: Scene, jobs: int, seconds: float) -> dict[str, dict[str, float]]:
    """The rate at which the first of many are drained, behind a deep backlog, by that behind a shallow one."""
    shallow, deep = scene.depths
    order = (deep, shallow) if scene.is_reversed else (shallow, deep)
    rates = {rows: _first_of(scene, jobs, rows) for rows in order}
    details = {"shallow": rates[shallow], "deep": rates[deep], "jobs": float(jobs)}
    return {"depth": {"value": rates[deep] / rates[shallow], **details}}


def opentx(scene: Scene, jobs: int, seconds: float) -> dict[str, dict[str, float]]:
    """The rate of a drain while another connection holds a transaction open, by that of one without."""
    found: dict[bool, list[int]] = {}
    for is_held in (True, False) if scene.is_reversed else (False, True):
        found[is_held] = _for_a_while(scene, is_held=is_held)
    overall, late = ({held: _rate(of(moments)) for held, moments in found.items()} for of in (_all, _late))
    details = {"without": overall[False], "held": overall[True], "late": late[True] / late[False]}
    details["jobs"] = float(min(len(moments) for moments in found.values()))
    return {"opentx": {"value": overall[True] / overall[False], **details}}


def _first_of(scene: Scene, jobs: int, behind: int) -> float:
    rows = jobs + behind
    with scene.anew(rows / PUSHED_MIN) as own, _filled(own, rows) as one, workers(own, one, 1) as running:
        until(own, lambda: counted.count(own.folder) >= jobs, running, f"{jobs} jobs run")
    moments = counted.moments(own.folder)[:jobs]
    return _rate(moments[jobs // 10 :])  # the first ones find it with its caches empty


def _for_a_while(scene: Scene, *, is_held: bool) -> list[int]:
    """The moments of the jobs that ran until the time was up or the store empty."""
    rows = round(RATE_MAX * scene.hold_s)
    with scene.anew(scene.hold_s + rows / PUSHED_MIN) as own, _filled(own, rows) as one:
        with held_open(own.url) if is_held else contextlib.nullcontext(), workers(own, one, 1) as running:
            until(own, lambda: counted.count(own.folder) > 0, running, "the first job")
            ends_at = time.monotonic() + scene.hold_s
            while time.monotonic() < ends_at and counted.count(own.folder) < rows:
                if running[0].poll() is not None:
                    raise Failed(f"a worker died\n{own.words()}")
                time.sleep(LOOK_S)
    return counted.moments(own.folder)


@contextlib.contextmanager
def _filled(scene: Scene, rows: int) -> Iterator[Side]:
    """A side on a store with so many no-op jobs in one queue."""
    with side(scene) as one:
        if scene.subject == OURS:
            driver = create_driver(scene.url)
            fill(driver, Backlog(rows))
            driver.close()
        elif (pushed := one.ask("bulk", rows, rows / PUSHED_MIN)["jobs"]) < rows:
            raise Failed(f"only {pushed:,.0f} of {rows:,} jobs were pushed within {rows / PUSHED_MIN:g} s")
        stores.rest(scene.kind, scene.url)
        yield one


@contextlib.contextmanager
def held_open(url: str) -> Iterator[None]:
    """A transaction with a snapshot: what is deleted or changed after it, the server must keep for it."""
    with psycopg.connect(servers.plain(url), connect_timeout=10) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT count(*) FROM pg_class")
        yield
        connection.execute("SELECT 1")  # it was not cut meanwhile


def _rate(moments: list[int]) -> float:
    if len(moments) < 2:
        raise Failed("too few jobs ran for a rate")
    return (len(moments) - 1) / ((moments[-1] - moments[0]) / 1e9)


def _all(moments: list[int]) -> list[int]:
    return moments


def _late(moments: list[int]) -> list[int]:
    """Those of the last fifth of the time."""
    from_ns = moments[-1] - (moments[-1] - moments[0]) // 5
    return [moment for moment in moments if moment >= from_ns]
