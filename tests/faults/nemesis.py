"""Does to workers what the dice say, one fault after the other, and undoes it in time.

Kills, freezes, stops; behind a proxy of its own (not on SQLite) also cut, mute, slow and dead networks. What was killed
or stopped is replaced.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from .crew import Crew, Member, wait_for
from .faketime import wrong_clock
from .hurting import crash_store
from .proxy import Mode, Proxy
from .stage import Stage

__all__ = ["STOP_S", "Nemesis"]

SKEW_S = 30.0
STOP_S = 30.0


class Nemesis:
    """Keeps `workers` of them at work, and strikes no others."""

    def __init__(
        self,
        stage: Stage,
        crew: Crew,
        stack: contextlib.ExitStack,
        *,
        workers: int,
        app: str = "faults.jobs",
        options: Sequence[str] = (),
    ) -> None:
        self._stage, self._crew, self._stack, self._dice = stage, crew, stack, stage.dice
        self._app, self._options, self._count = app, options, workers
        self._undo: list[tuple[float, Callable[[], None]]] = []
        self._struck: set[str] = set()  # workers to whom something is being done just now
        self._url = urlsplit(stage.url)
        self._mine: list[Member] = []
        for number in range(workers):
            self._hire(is_skewed=number == 0)

    def strike(self) -> None:
        """One worker, one fault."""
        free = [member for member in self._mine if member in self._crew.at_work and member.name not in self._struck]
        if not free:
            return
        member, longer_s = self._dice.choice(free), self._crew.lease_s + self._dice.uniform(0.3, 2.0)
        menu = [self._kill, self._kill, self._freeze, self._stop]
        if isinstance(member.via, Proxy):  # not on SQLite
            menu += [self._cut, self._mute, self._delay, self._black_hole]
        self._dice.choice(menu)(member, longer_s)

    def replenish(self) -> None:
        """Instead of those that found no store at their start."""
        self._mine = [member for member in self._mine if member.is_there]
        while len(self._mine) < self._count:
            self._hire()

    def strike_store(self) -> None:
        """Kill the server; fill the disk and hold the lock."""
        if self._stage.server or self._stage.disk:
            crash_store(self._stage, self._crew)

    def rest(self, seconds: float) -> None:
        """Undo what it is time to undo, for so long."""
        ends = time.monotonic() + seconds
        while (now := time.monotonic()) < ends:
            due = [undo for at, undo in self._undo if at <= now]
            self._undo = [(at, undo) for at, undo in self._undo if at > now]
            for undo in due:
                undo()
            time.sleep(0.02)

    def relent(self) -> None:
        """Undo all."""
        for _, undo in self._undo:
            undo()
        self._undo = []

    def _hire(self, *, is_skewed: bool = False) -> None:
        env = wrong_clock(self._dice.choice((-SKEW_S, SKEW_S))) if is_skewed and self._stage.kind != "sqlite" else {}
        url, proxy = self._stage.url, None
        if self._url.hostname is not None and self._url.port is not None:
            proxy = self._stack.enter_context(Proxy(self._url.hostname, self._url.port))
            url = proxy.url(url)
        self._mine.append(self._crew.hire(url, app=self._app, options=self._options, env=env, via=proxy))

    def _kill(self, member: Member, _: float) -> None:
        self._crew.kill(member)
        self._hire(is_skewed=self._dice.random() < 1 / self._count)

    def _stop(self, member: Member, _: float) -> None:
        wait_for("a worker that has begun", self._has_one_that_began, STOP_S)
        if member in self._crew.ready:
            self._hire()
            self._crew.stop(member, within_s=STOP_S)

    def _has_one_that_began(self) -> bool:
        self.replenish()  # all of them may have found no store at their start, and nobody else hires meanwhile
        return bool(self._crew.ready)

    def _freeze(self, member: Member, longer_s: float) -> None:
        self._during(member, longer_s, self._crew.freeze(member))

    def _cut(self, member: Member, _: float) -> None:
        _proxy_of(member).cut()

    def _mute(self, member: Member, _: float) -> None:
        self._network(member, "mute", self._dice.uniform(0.2, 2.0))

    def _black_hole(self, member: Member, longer_s: float) -> None:
        self._network(member, "black hole", longer_s)

    def _delay(self, member: Member, _: float) -> None:
        proxy = _proxy_of(member)
        proxy.delay_s = self._dice.uniform(0.05, 0.4)

        def undo() -> None:
            proxy.delay_s = 0.0

        self._during(member, 2.0, undo)

    def _network(self, member: Member, mode: Mode, seconds: float) -> None:
        proxy, began = _proxy_of(member), time.monotonic()
        proxy.mode = mode

        def undo() -> None:
            proxy.mode = "pass"
            self._crew.note("cut off", began, member.name)

        self._during(member, seconds, undo)

    def _during(self, member: Member, seconds: float, undo: Callable[[], None]) -> None:
        self._struck.add(member.name)

        def freed() -> None:
            self._struck.discard(member.name)
            undo()

        self._undo.append((time.monotonic() + seconds, freed))


def _proxy_of(member: Member) -> Proxy:
    assert isinstance(member.via, Proxy)
    return member.via
