"""Three tickers, and the wall clock of the first steps while it runs: 5 min ahead, 5 min behind, and back.

An every-second and an every-minute schedule: no time doubled, none lost, for the time is the store's. Not on SQLite,
where the process's clock is the store's: tests/faults/test_schedules.py shows what a step does there.
"""

from __future__ import annotations

import time

import servers

from ..crew import Crew, Member, wait_for
from ..faketime import SteppedClock
from ..figures import summed_up
from ..stage import Report, Stage
from ..times import every_minute, every_second

MINUTES = 3.0
OTHERS = 2
STEP_S = 300.0
STEPS_S = (0.0, STEP_S, -STEP_S, 0.0)  # each for a quarter of the run
OFF_S = 1.0  # how exactly its offset can be seen
LEASE_S = 10.0  # the worker's
BEGUN_S = 60.0
DRAIN_S = 60.0


def run(stage: Stage) -> Report:
    """See above."""
    if stage.kind == "sqlite":
        raise servers.Unavailable("on SQLite a process's clock is the store's: see PostgreSQL, MariaDB and Valkey")
    seconds = 60 * (stage.minutes or MINUTES)
    crew, clock = Crew(stage.folder, lease_s=LEASE_S), SteppedClock(stage.folder)
    phases: list[tuple[float, float]] = []
    try:
        crew.hire(stage.url, options=["--no-scheduler"])
        stepped = crew.hire_ticker(stage.url, env=clock.env)
        for _ in range(OTHERS):
            crew.hire_ticker(stage.url)
        wait_for("the tickers to begin", lambda: len(crew.awake_tickers) == 1 + OTHERS, BEGUN_S)
        with stage.queue() as queue:
            schedules = [every_second(queue), every_minute(queue)]
        for step_s in STEPS_S:
            clock.step_to(step_s)
            phases.append((time.monotonic(), step_s))
            stage.say(f"{step_s:+g} s")
            time.sleep(seconds / len(STEPS_S))  # the phase itself
        report = summed_up(stage, crew, 0, drain_s=DRAIN_S, schedules=schedules)
    finally:
        crew.dismiss()
    for number, (began, step_s) in enumerate(phases):
        ended = phases[number + 1][0] if number + 1 < len(phases) else began + seconds
        _judge_phase(report, crew, stepped, (began, ended), step_s, number)
    report.complaints += [f"ticker {one.name} ended by itself" for one in crew.tickers if one.process.returncode != -9]
    return report


def _judge_phase(
    report: Report, crew: Crew, stepped: Member, span: tuple[float, float], step_s: float, number: int
) -> None:
    """The clock must have stood as it was set, and its ticker have fired by it; else nothing was shown."""
    ticks = [tick for tick in crew.entries("ticked") if tick["worker"] == stepped.name]
    ticks = [tick for tick in ticks if span[0] + OFF_S < float(str(tick["at"])) < span[1]]
    ahead_s = [float(str(tick["wall_ahead_s"])) - (time.time() - time.monotonic()) for tick in ticks]
    if any(abs(off_s - step_s) > OFF_S for off_s in ahead_s):
        report.complaints.append(
            f"the clock was set {step_s:+g} s, and stood {min(ahead_s):+.0f} to {max(ahead_s):+.0f}"
        )
    fired = sum(int(str(tick["fired"])) for tick in ticks)
    if not fired:
        report.complaints.append(f"the ticker whose clock was set {step_s:+g} s has fired nothing with it")
    report.figures[f"fired in quarter {number + 1}, at {step_s:+g} s"] = fired
