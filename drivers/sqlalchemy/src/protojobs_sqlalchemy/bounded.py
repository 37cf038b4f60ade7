"""A psycopg connection that gives up on a silent server.

The server's own statement_timeout and the kernel's TCP timeouts bound a call on a working server and on a cut network.
Neither helps when the server's machine is frozen: the kernel there acknowledges, and nobody answers.
"""

from __future__ import annotations

from typing import TypeVar

import psycopg
from psycopg.abc import PQGen

from protojobs.clock import SYSTEM_CLOCK

__all__ = ["BoundedConnection"]

RV = TypeVar("RV")


class BoundedConnection(psycopg.Connection[tuple[object, ...]]):
    """No call waits for longer than `wait_s` seconds; after that the connection is closed, since it is out of step."""

    wait_s = 10.0

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """As psycopg's own, with a bound."""
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        started = SYSTEM_CLOCK.monotonic()
        try:
            return super().wait(gen, interval, self.wait_s)
        except psycopg.OperationalError as error:
            if SYSTEM_CLOCK.monotonic() - started < self.wait_s:
                raise
            self.close()
            raise psycopg.OperationalError(f"the server did not answer for {self.wait_s:g} s") from error
