"""Five processes tick one every-second schedule; every 4 s one is killed and replaced, or frozen and thawed later.

Half of the freezes catch a ticker between reading what is due and firing it, the others wherever it stands. One of the
former lasts a minute. Each second must fire exactly once, and run exactly once in a worker that nothing happens to.

On SQLite all freezes are of the former kind. A process that is frozen inside a write holds the file, and nobody fires
until it goes on (docs/guarantees.md says so): that would show less here, namely nobody firing, and not more. Kills hit
anywhere there too.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from ..crew import Crew, wait_for
from ..figures import summed_up
from ..stage import Report, Stage
from ..times import every_second

MINUTES = 3.0
TICKERS = 5
STRIKE_EVERY_S = 4.0
NEAR_S = (-0.02, 0.08)  # from a whole second on: then tickers look, and fire
FROZEN_S = (2.0, 12.0)
LONG_FROZEN_S = 60.0
LONG_AT = 0.25  # of the run, if it lasts long enough
CAUGHT_WITHIN_S = 15.0
HELD_UP_S = 15.0  # nobody waits so long: what a frozen ticker holds, a store frees within 10 s
LEASE_S = 10.0  # the worker's
BEGUN_S = 60.0
DRAIN_S = 60.0


def run(stage: Stage) -> Report:
    """See above."""
    seconds = 60 * (stage.minutes or MINUTES)
    crew = Crew(stage.folder, lease_s=LEASE_S)
    try:
        crew.hire(stage.url, options=["--no-scheduler"])
        nemesis = _Nemesis(stage, crew)
        wait_for("the tickers to begin", lambda: len(crew.awake_tickers) == TICKERS, BEGUN_S)
        with stage.queue() as queue:
            registered = every_second(queue)
        nemesis.strike_for(seconds)
        report = summed_up(stage, crew, 0, drain_s=DRAIN_S, schedules=[registered])
    finally:
        crew.dismiss()
    name = registered.id
    if int(str(report.figures[f"{name}: times"])) < seconds - FROZEN_S[1]:
        report.complaints.append(f"{name} has come to {report.figures[f'{name}: times']} times in {seconds:g} s")
    if float(str(report.figures[f"{name}: latest after s"])) > HELD_UP_S and stage.kind != "sqlite":
        report.complaints.append(f"{name}: the tickers that were awake waited for frozen ones")
    report.complaints += nemesis.complaints
    report.figures |= _counted(crew)
    return report


def _counted(crew: Crew) -> dict[str, object]:
    """What the tickers did."""
    figures: dict[str, object] = {}
    caught, fired = crew.entries("caught"), crew.entries("schedule.fired")
    figures["caught before they fired"] = len(caught)
    figures["of these fired their plan"] = sum(any(_is_of(entry, tick) for tick in fired) for entry in caught)
    frozen = [fault.ended - fault.began for fault in crew.faults if fault.kind in ("caught", "freeze")]
    figures["longest freeze in s"] = round(max(frozen, default=0.0), 1)
    overtaken: Counter[str] = Counter({ticker.name: 0 for ticker in crew.tickers})
    for tick in crew.entries("ticked"):
        overtaken[str(tick["worker"])] += int(str(tick["overtaken"]))
    figures["tickers, with those replaced"] = len(overtaken)
    figures["steps overtaken"] = overtaken.total()
    figures["steps overtaken, by ticker"] = " ".join(map(str, overtaken.values()))
    return figures


def _is_of(caught: dict[str, object], fired: dict[str, object]) -> bool:
    """Whether it fired, awake again, what it had read before: well, if all others were away; else somebody else has."""
    return fired["worker"] == caught["worker"] and fired["due_at"] in str(caught["due"])


class _Nemesis:
    """Does to the tickers what the dice say."""

    def __init__(self, stage: Stage, crew: Crew) -> None:
        self.complaints: list[str] = []
        self._stage, self._crew, self._dice = stage, crew, stage.dice
        self._thaws: list[tuple[float, Callable[[], None]]] = []
        for _ in range(TICKERS):
            crew.hire_ticker(stage.url)

    def strike_for(self, seconds: float) -> None:
        """One strike after the other; all that are frozen go on at the end, the one of the long freeze too."""
        began = time.monotonic()
        long_at = began + seconds * LONG_AT if seconds * (1 - LONG_AT) > LONG_FROZEN_S else began + seconds
        strikes = 0
        while (now := time.monotonic()) < began + seconds:
            if now >= long_at:
                long_at = began + seconds
                self._catch(LONG_FROZEN_S)
            else:
                self._strike()
            strikes += 1
            self._stage.say(f"{now - began:3.0f} s: {len(self._crew.faults)} faults")
            self._pause(began + strikes * STRIKE_EVERY_S)
        for _, thaw in self._thaws:
            thaw()
        self._note_the_gone()

    def _strike(self) -> None:
        """Most moments of a ticker are idle: near a whole second it looks and fires."""
        self._pause(time.monotonic() + (1 - time.time() % 1 + self._dice.uniform(*NEAR_S)) % 1)
        awake = self._crew.awake_tickers
        if len(awake) < 2:  # somebody must be left to tick
            return
        what = self._dice.choice(("kill", "kill", "catch", "freeze"))
        if what == "kill":
            self._crew.kill(self._dice.choice(awake))
            self._crew.hire_ticker(self._stage.url)
        elif what == "catch" or self._stage.kind == "sqlite":
            self._catch(self._dice.uniform(*FROZEN_S))
        else:
            self._thaw_later(self._crew.freeze(self._dice.choice(awake)), self._dice.uniform(*FROZEN_S))

    def _catch(self, seconds: float) -> None:
        """Freeze one between reading and firing: it says when, and we wait until it does."""
        member = self._dice.choice(self._crew.awake_tickers)
        self._crew.catch(member)
        until = time.monotonic() + CAUGHT_WITHIN_S
        while not member.has_stopped:
            if time.monotonic() > until:
                self.complaints.append(f"{member.name} had nothing to fire in {CAUGHT_WITHIN_S:g} s")
                return
            self._pause(time.monotonic() + 0.02)
        self._thaw_later(self._crew.freeze(member, "caught"), seconds)

    def _thaw_later(self, thaw: Callable[[], None], seconds: float) -> None:
        self._thaws.append((time.monotonic() + seconds, thaw))

    def _pause(self, until: float) -> None:
        """Until then; those whose freeze is over go on meanwhile."""
        while True:
            now = time.monotonic()
            for _, thaw in (due for due in self._thaws if due[0] <= now):
                thaw()
            self._thaws = [left for left in self._thaws if left[0] > now]
            if now >= until:
                return
            time.sleep(min(0.02, until - now))

    def _note_the_gone(self) -> None:
        killed = {fault.worker for fault in self._crew.faults if fault.kind == "kill"}
        for one in self._crew.tickers:
            if not one.is_there and one.name not in killed:
                self.complaints.append(f"ticker {one.name} ended by itself, with {one.process.poll()}")
