"""All at once, by the dice: kills, freezes, stops, cut, deaf and slow networks, crashes of the store, wrong clocks.

Three workers, each behind a proxy of its own (not on SQLite), the first with a clock that is 30 s wrong; two producers.
The workers also tick an every-second schedule: each second fires once, however late.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from ..crew import Crew, Member, wait_for
from ..faketime import wrong_clock
from ..figures import summed_up
from ..hurting import crash_store
from ..proxy import Mode, Proxy
from ..stage import Report, Stage
from ..times import every_second

MINUTES = 2.0
WORKERS = 3
LEASE_S = 3.0
JOBS_A_SECOND = 40
PAUSE_S = (0.5, 2.0)  # between two faults
SKEW_S = 30.0
GRACE_S = 5.0
STOP_S = 30.0
DRAIN_S = 150.0  # a claim that the store executed late is found by the second comparison, a minute later
CRASHES_AT = (0.3, 0.7)
EXECUTORS = "thread,thread,thread,async,async,process"


def run(stage: Stage) -> Report:
    """See above."""
    seconds = 60 * (stage.minutes or MINUTES)
    count = round(JOBS_A_SECOND * seconds)
    crew = Crew(stage.folder, lease_s=LEASE_S, grace_s=GRACE_S)
    with contextlib.ExitStack() as stack:
        stack.callback(crew.dismiss)
        nemesis = _Nemesis(stage, crew, stack, count)
        with stage.queue() as queue:
            schedule = every_second(queue)
        wait_for("a worker to begin", lambda: crew.ready, STOP_S)  # on a busy machine that takes its time
        began = time.monotonic()
        crashes = [began + seconds * share for share in CRASHES_AT]
        with ThreadPoolExecutor(1) as apart:
            while (now := time.monotonic()) < began + seconds:
                if crashes and now >= crashes[0]:
                    crashes.pop(0)
                    struck = apart.submit(nemesis.strike_store)
                nemesis.strike()
                nemesis.replenish()
                stage.say(f"{now - began:3.0f} s: {len(crew.faults)} faults")
                nemesis.rest(stage.dice.uniform(*PAUSE_S))
            struck.result()
        nemesis.relent()
        return summed_up(stage, crew, count, drain_s=DRAIN_S, schedules=[schedule])


class _Nemesis:
    """Does to the crew what the dice say, and undoes it in time."""

    def __init__(self, stage: Stage, crew: Crew, stack: contextlib.ExitStack, count: int) -> None:
        self._stage, self._crew, self._stack, self._dice = stage, crew, stack, stage.dice
        self._undo: list[tuple[float, Callable[[], None]]] = []
        self._struck: set[str] = set()  # workers to whom something is being done just now
        self._url = urlsplit(stage.url)
        for _ in range(2):
            rate = JOBS_A_SECOND / 2
            crew.produce(stage.url, count=count // 2, rate=rate, takes_s=1.0, push_timeout=30, executors=EXECUTORS)
        for number in range(WORKERS):
            self._hire(is_skewed=number == 0)

    def strike(self) -> None:
        """One worker, one fault."""
        free = [member for member in self._crew.at_work if member.name not in self._struck]
        if not free:
            return
        member, longer_s = self._dice.choice(free), LEASE_S + self._dice.uniform(0.3, 2.0)
        menu = [self._kill, self._kill, self._freeze, self._stop]
        if isinstance(member.via, Proxy):  # not on SQLite
            menu += [self._cut, self._mute, self._delay, self._black_hole]
        self._dice.choice(menu)(member, longer_s)

    def replenish(self) -> None:
        """Instead of those that found no store at their start."""
        while sum(member.is_there for member in self._crew.workers) < WORKERS:
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
        if self._url.hostname is None or self._url.port is None:
            self._crew.hire(self._stage.url, env=env)
            return
        proxy = self._stack.enter_context(Proxy(self._url.hostname, self._url.port))
        self._crew.hire(proxy.url(self._stage.url), env=env, via=proxy)

    def _kill(self, member: Member, _: float) -> None:
        self._crew.kill(member)
        self._hire(is_skewed=self._dice.random() < 1 / WORKERS)

    def _stop(self, member: Member, _: float) -> None:
        wait_for("a worker that has begun", lambda: self._crew.ready, STOP_S)
        if member in self._crew.ready:
            self._hire()
            self._crew.stop(member, within_s=STOP_S)

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
