"""The primary dies for good under load, and its replica takes over: PostgreSQL's standby, or a Valkey cluster's.

For a second before the kill the replica hears nothing. Where a write waits for it, nothing is acknowledged in that
second, and nothing may be lost. Where it does not, all that was acknowledged in that second is lost, and the checker
must say so: a control of what it can see.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextlib import ExitStack

import servers

from ..crew import Crew, wait_for
from ..failover_postgresql import pair
from ..failover_valkey import cluster
from ..figures import summed_up
from ..stage import Report, Stage

MINUTES = 1.0
ROUND_S = 15.0
PARTED_S = 1.0
RATE = 60.0
LOADED_S = 1.5
WORKERS = 2
LEASE_S = 3.0
DRAIN_S = 90.0  # what a store forgot to be done goes back in the second round of comparing, each 30 s
FOUND_S = 30.0
GONE = "was acknowledged and is gone"
LEVELS = ("on", "remote_apply")

Strike = Callable[[Crew, int], float]
"""Fails over once; answers the moment at which the replica had taken over."""


def run(stage: Stage) -> Report:
    """See above; `--minutes` sets how often it fails over."""
    rounds = max(1, round((stage.minutes or MINUTES) * 60 / ROUND_S))
    if stage.kind == "postgresql":
        waiting, control = on_postgresql(stage, rounds), on_postgresql(stage, 1, is_synchronous=False)
    elif stage.kind == "valkey":
        waiting, control = on_valkey(stage, rounds, "&wait_replicas=1&wait_timeout=0.5"), on_valkey(stage, 1)
    else:
        raise servers.Unavailable(f"nothing fails over on {stage.kind} here: see PostgreSQL and Valkey")
    figures = {f"waiting: {name}": value for name, value in waiting.figures.items()}
    figures |= {f"control: {name}": value for name, value in control.figures.items()}
    return Report(waiting.complaints + control.complaints, figures)


def on_postgresql(stage: Stage, rounds: int, *, is_synchronous: bool = True, round_s: float = ROUND_S) -> Report:
    """A primary and a standby, and a URL that names both."""
    with pair() as both:
        servers.create_database(both.primary.url, "faults")
        url = both.url("faults")

        def strike(crew: Crew, number: int) -> float:
            if both.standby is None:
                both.add_standby()
            if is_synchronous:
                both.be_synchronous(LEVELS[number % 2])
            _load(crew)
            parted = time.monotonic()
            both.part()
            time.sleep(PARTED_S)  # what is acknowledged now, the standby does not know
            both.kill_primary()
            both.promote()
            crew.note("outage", parted)
            if not is_synchronous:
                crew.note("rolled back", parted)
            taken_over = time.monotonic()
            _until_started(crew, taken_over)
            return taken_over

        return _under_load(stage, url, strike, (rounds, round_s), is_safe=is_synchronous)


def on_valkey(stage: Stage, rounds: int, options: str = "", *, round_s: float = ROUND_S) -> Report:
    """A cluster, with a replica for the primary that holds the jobs."""
    with cluster() as nodes:

        def strike(crew: Crew, number: int) -> float:
            _load(crew)
            parted = time.monotonic()
            with ExitStack() as stack:
                go_on = nodes.part()
                stack.callback(go_on)
                time.sleep(PARTED_S)  # what is acknowledged now, the replica does not know
                stack.enter_context(nodes.down())
                go_on()
                nodes.wait_for_takeover()
                crew.note("rolled back", parted)  # a claim is never waited for
                taken_over = time.monotonic()
            crew.note("outage", parted)  # until there is a replica again
            _until_started(crew, taken_over)
            return taken_over

        return _under_load(stage, nodes.url + options, strike, (rounds, round_s), is_safe=bool(options))


def _under_load(stage: Stage, url: str, strike: Strike, plan: tuple[int, float], *, is_safe: bool) -> Report:
    rounds, round_s = plan
    folder = stage.folder / ("waiting" if is_safe else "control")
    folder.mkdir()
    stage = dataclasses.replace(stage, url=url, folder=folder)
    with stage.queue() as queue:
        queue.driver.setup()
    crew = Crew(folder, lease_s=LEASE_S)
    count = round(RATE * round_s * rounds)
    try:
        for _ in range(WORKERS):
            crew.hire(url)
        crew.produce(url, count=count, rate=RATE, push_timeout=30, executors="thread,async")
        taken_over = []
        for number in range(rounds):
            stage.say(f"{folder.name}: failover {number + 1} of {rounds}")
            taken_over.append(strike(crew, number))
        report = summed_up(stage, crew, count, drain_s=DRAIN_S)
        delays = [_first_start(crew, moment) - moment for moment in taken_over]
    finally:
        crew.dismiss()
    lost = [complaint for complaint in report.complaints if complaint.endswith(GONE)]
    report.figures |= {"failovers": rounds, "acknowledged and lost": len(lost)}
    report.figures["takeover to start, worst in s"] = round(max(delays), 2)
    if not is_safe:  # then this is what the control is for
        report.complaints = [complaint for complaint in report.complaints if complaint not in lost]
        if not lost:
            report.complaints.append("the control lost nothing: this run shows nothing")
    return report


def _load(crew: Crew) -> None:
    """Return when there has been work for a while."""
    began = time.monotonic()
    _until(
        "pushes and runs",
        lambda: all(
            sum(entry["at"] > began for entry in crew.entries(what)) > RATE * LOADED_S  # type: ignore[operator]
            for what in ("acknowledged", "start")
        ),
    )


def _until_started(crew: Crew, since: float) -> None:
    _until("a start after the failover", lambda: _first_start(crew, since) < float("inf"))


def _first_start(crew: Crew, since: float) -> float:
    moments = (float(str(entry["at"])) for entry in crew.entries("start"))
    return min((moment for moment in moments if moment > since), default=float("inf"))


def _until(what: str, condition: Callable[[], bool]) -> None:
    def now_and_then() -> bool:
        time.sleep(0.1)  # reading all journals takes a while
        return condition()

    wait_for(what, now_and_then, FOUND_S)
