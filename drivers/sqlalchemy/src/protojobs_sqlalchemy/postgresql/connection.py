"""A psycopg connection that gives up on a silent server.

The server's own statement_timeout and the kernel's TCP timeouts bound a call on a working server and on a cut network.
Neither helps when the server's machine is frozen: the kernel there acknowledges, and nobody answers. Nor do they know
that somebody waits for a push only so long (`clock.within`).
"""

from __future__ import annotations

from typing import TypeVar

import psycopg
from psycopg.abc import PQGen, PQGenConn

from protojobs.clock import SYSTEM_CLOCK, time_left

__all__ = ["BoundedConnection"]

RV = TypeVar("RV")


class BoundedConnection(psycopg.Connection[tuple[object, ...]]):
    """No call waits for longer than `wait_s` seconds; after that the connection is closed, since it is out of step."""

    wait_s = 10.0

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """As psycopg's own, with a bound."""
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        started, wait_s = SYSTEM_CLOCK.monotonic(), time_left(self.wait_s)
        try:
            return super().wait(gen, interval, wait_s)
        except psycopg.OperationalError as error:
            if SYSTEM_CLOCK.monotonic() - started < wait_s:
                raise
            self.close()
            raise psycopg.OperationalError(f"the server did not answer for {wait_s:.3g} s") from error

    @classmethod
    def _connect_gen(cls, conninfo: str = "") -> PQGenConn[BoundedConnection]:
        """As psycopg's own, whose time limit cannot be less than two seconds. It comes by here ten times a second."""
        gives_up_at = SYSTEM_CLOCK.monotonic() + time_left(float("inf"))
        steps = super()._connect_gen(conninfo)
        try:
            wanted = next(steps)
            while True:
                ready = yield wanted
                if SYSTEM_CLOCK.monotonic() >= gives_up_at:
                    raise psycopg.OperationalError("the server did not answer in time")
                wanted = steps.send(ready)
        except StopIteration as end:
            connection: BoundedConnection = end.value
            return connection
