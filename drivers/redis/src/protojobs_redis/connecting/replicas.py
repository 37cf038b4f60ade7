"""Waiting until replicas have what was written, where the settings ask for it: WAIT, on the connection of the write."""

from __future__ import annotations

from msgspec import Struct

from protojobs.errors import OptionInvalid, StoreUnavailable
from protojobs_redis.connecting.clients import Server
from protojobs_redis.connecting.urls import TIMEOUT_S

__all__ = ["KEPT", "Replicas", "check_replicas"]

WAIT_S = 1.0
WAIT_S_MAX = TIMEOUT_S - 1.0  # the reply to WAIT shall come before the connection is taken for dead
REPLICAS_MAX = 16

# What is promised to the caller, so it waits; settlements do too. A job that was given to another store and that a
# failover gives back would be in both. A claim, a reclaim or a prune that a failover forgets is only made again.
KEPT = frozenset(
    {"enqueue", "cancel", "retry_failed", "forget_failed", "clear", "pause", "resume"}
    | {"export_jobs", "import_jobs", "drop_exported"}
    | {"save_schedule", "fire", "remove_schedule"}
)

# A step that finds nothing to do (sent again, since nobody knew whether it was done) writes nothing, and WAIT would
# wait for nothing: it looks at the last write of this connection. So there is always one. It begins by deleting: at its
# memory limit a server refuses a bare SET, and by that the results of running jobs would count as not kept.
_A_WRITE = "redis.call('DEL', KEYS[1]) return redis.call('SET', KEYS[1], 1)"


class Replicas(Struct, frozen=True, kw_only=True):
    """How many must have a write before it counts, and for how long that is waited for."""

    number: int = 0
    within_s: float = WAIT_S

    def run(self, server: Server, shown: str, key: str, *command: str | bytes | int) -> object:
        """The reply to `command`, when enough replicas have what it wrote; else StoreUnavailable."""
        pipeline = server.pipeline(transaction=False)
        pipeline.execute_command(*command)
        pipeline.execute_command("EVAL", _A_WRITE, 1, key)
        pipeline.execute_command("WAIT", self.number, int(self.within_s * 1000))
        reply, _, reached = replies = pipeline.execute(raise_on_error=False)
        for each in replies:
            if isinstance(each, Exception):
                raise each
        if not isinstance(reached, int) or reached < self.number:
            raise StoreUnavailable(
                f"{shown} did it, but {reached} of {self.number} replicas said within {self.within_s:g} s that they"
                " have it.",
                mend="It is safe to send it again. Are the replicas up, and in touch with their primary?",
            )
        return reply


def check_replicas(number: int | str | None, within_s: float | str | None) -> Replicas:
    """The settings from arguments or from a URL's text."""
    try:
        replicas = Replicas(
            number=int(number) if number is not None else 0, within_s=WAIT_S if within_s is None else float(within_s)
        )
    except ValueError as error:
        raise OptionInvalid(f"wait_replicas or wait_timeout is no number: {error}.") from error
    if not 0 <= replicas.number <= REPLICAS_MAX:
        raise OptionInvalid(f"wait_replicas={replicas.number} is not within 0 to {REPLICAS_MAX}.")
    if not 0.001 <= replicas.within_s <= WAIT_S_MAX:
        raise OptionInvalid(f"wait_timeout={replicas.within_s:g} is not within 0.001 to {WAIT_S_MAX:g} seconds.")
    return replicas
