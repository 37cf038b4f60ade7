"""What charts are drawn from, by the notes that workers send: runs over time, error rates, depths.

Raises NotSupported where the store keeps no notes. Each call takes two round trips; one, where `now` is given: store
time, as it was asked for a moment ago.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Literal

from protojobs.clock import EPOCH
from protojobs.errors import OptionInvalid
from protojobs.inspector.scope import Scope
from protojobs.inspector.views import Point, Rate, Series
from protojobs.port.observing import (
    HOUR,
    HOURS_KEPT_S,
    MINUTE,
    MINUTES_KEPT_S,
    DepthSample,
    Result,
    Rollup,
    RollupTotal,
    percentile,
)

__all__ = ["depths", "rates", "series"]

MINUTES_MAX = int(HOURS_KEPT_S) // MINUTE
_ERRORS = frozenset({Result.RETRIED, Result.FAILED, Result.LOST})
_ATTEMPTS = _ERRORS | {Result.COMPLETED}


def series(
    scope: Scope, minutes: int = 60, *, queue: str = "", job_name: str = "", now: datetime | None = None
) -> Series:
    """Runs of the last `minutes`, for each minute, or beyond three hours for each hour, up to seven days.

    Of all jobs, or of one queue, one job name, or both. The last point is the period that goes on.
    """
    period_s = _period(minutes)
    with scope.looking():
        since, until = _span(now or scope.driver.now(), minutes, period_s)
        rollups = scope.observer().rollups(period_s, since, until, queue=queue, job_name=job_name)
    by_time: defaultdict[datetime, list[Rollup]] = defaultdict(list)
    for rollup in rollups:
        by_time[rollup.began_at].append(rollup)
    steps = int((until - since).total_seconds()) // period_s
    times = [since + timedelta(seconds=period_s * step) for step in range(steps)]
    points = tuple(_point(time, by_time[time]) for time in times)
    return Series(period_s=period_s, points=points, total=_point(since, rollups))


def rates(
    scope: Scope,
    minutes: int = 60,
    *,
    by: Literal["queue", "job_name"] = "job_name",
    limit: int = 50,
    now: datetime | None = None,
) -> list[Rate]:
    """How the runs of each queue or job name went in the last `minutes`, those with the most errors first."""
    period_s = _period(minutes)
    with scope.looking():
        since, until = _span(now or scope.driver.now(), minutes, period_s)
        totals = scope.observer().totals(period_s, since, until, by=by, limit=limit)
    by_name: defaultdict[str, list[RollupTotal]] = defaultdict(list)
    for total in totals:
        by_name[total.name].append(total)
    rates = [_rate(name, of_name) for name, of_name in by_name.items()]
    return sorted(rates, key=lambda rate: (-rate.errors, -rate.runs, rate.name))


def depths(
    scope: Scope, minutes: int = 60, *, queue: str | None = None, now: datetime | None = None
) -> list[DepthSample]:
    """How many jobs one queue, or each, had in the last `minutes`, oldest first; up to three hours."""
    _period(minutes)
    with scope.looking():
        since, until = _span(now or scope.driver.now(), min(minutes, int(MINUTES_KEPT_S) // MINUTE), MINUTE)
        return scope.observer().depths(since, until, queue=queue)


def _period(minutes: int) -> int:
    if not 1 <= minutes <= MINUTES_MAX:
        raise OptionInvalid(f"minutes is {minutes}.", mend=f"It goes from 1 to {MINUTES_MAX}: seven days.")
    return MINUTE if minutes * MINUTE <= MINUTES_KEPT_S else HOUR


def _span(now: datetime, minutes: int, period_s: int) -> tuple[datetime, datetime]:
    """From the beginning of a period to the end of the one that goes on."""
    period = timedelta(seconds=period_s)
    until = now - (now - EPOCH) % period + period
    return until - period * -(-minutes * MINUTE // period_s), until


def _point(began_at: datetime, rollups: Iterable[Rollup]) -> Point:
    counts: Counter[Result] = Counter()
    waits: Counter[int] = Counter()
    runs: Counter[int] = Counter()
    for rollup in rollups:
        counts[rollup.result] += rollup.count
        waits.update(rollup.waits)
        runs.update(rollup.runs)
    return Point(
        began_at=began_at,
        counts=dict(counts),
        wait_p50=percentile(waits, 0.5),
        wait_p95=percentile(waits, 0.95),
        wait_p99=percentile(waits, 0.99),
        run_p50=percentile(runs, 0.5),
        run_p95=percentile(runs, 0.95),
        run_p99=percentile(runs, 0.99),
    )


def _rate(name: str, totals: Iterable[RollupTotal]) -> Rate:
    by_result: Mapping[Result, RollupTotal] = {total.result: total for total in totals}
    runs = sum(total.count for total in by_result.values())
    errors = sum(total.count for result, total in by_result.items() if result in _ERRORS)
    attempts = sum(total.count for result, total in by_result.items() if result in _ATTEMPTS)
    run_s = sum(total.run_s for total in by_result.values())
    return Rate(
        name=name,
        runs=runs,
        errors=errors,
        error_rate=errors / attempts if attempts else 0.0,
        wait_avg_s=sum(total.wait_s for total in by_result.values()) / runs if runs else 0.0,
        run_avg_s=run_s / runs if runs else 0.0,
        run_s=run_s,
    )
