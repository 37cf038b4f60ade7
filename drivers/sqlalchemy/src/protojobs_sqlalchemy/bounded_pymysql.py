"""A PyMySQL connection that gives up sooner than its own time limits where the caller waits no longer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pymysql.connections import Connection

from protojobs.clock import time_left

if TYPE_CHECKING:
    Base = Connection[Any]
else:
    Base = Connection

__all__ = ["BoundedConnection", "connected"]

_CONNECT_S = 10.0  # PyMySQL's own
_MOMENT_S = 0.001  # PyMySQL takes 0 for "no limit"


class BoundedConnection(Base):
    """Asks before every wait how long it may last. PyMySQL itself keeps one limit for all of them."""

    _usual_read_s: float | None = None
    _usual_write_s: float | None = None

    @property
    def _read_timeout(self) -> float | None:
        return _bounded(self._usual_read_s)

    @_read_timeout.setter
    def _read_timeout(self, seconds: float | None) -> None:
        self._usual_read_s = seconds

    @property
    def _write_timeout(self) -> float | None:
        return _bounded(self._usual_write_s)

    @_write_timeout.setter
    def _write_timeout(self, seconds: float | None) -> None:
        self._usual_write_s = seconds


def connected(arguments: Sequence[Any], options: Mapping[str, Any]) -> BoundedConnection:
    """A new connection, open, in the time that there is: half of it, since a host may have two addresses."""
    usual_s = float(options.get("connect_timeout", _CONNECT_S))
    timeout = min(usual_s, max(time_left(2 * usual_s) / 2, _MOMENT_S))
    return BoundedConnection(*arguments, **{**options, "connect_timeout": timeout})


def _bounded(usual_s: float | None) -> float | None:
    seconds = time_left(float("inf") if usual_s is None else usual_s)
    return None if seconds == float("inf") else max(seconds, _MOMENT_S)
