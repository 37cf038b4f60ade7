"""What each driver object has of its own: its connections, its namespace, and what time it takes it to be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from msgspec.msgpack import Decoder

from protojobs.errors import ContractBroken, OptionInvalid, shown
from protojobs.port.records import BATCH_JOBS_MAX
from protojobs_redis.connecting.connections import Connections
from protojobs_redis.connecting.replicas import KEPT, check_replicas
from protojobs_redis.connecting.urls import check_namespace, parse
from protojobs_redis.packing import micros
from protojobs_redis.prune_cursor import Laps
from protojobs_redis.scripting import script
from protojobs_redis.waiting import Doorbell

__all__ = ["Handle", "check_batch"]

Answer = TypeVar("Answer")


class Handle:
    """One way into a namespace. `time_offset` (seconds) is added to the server's clock; 0 in production.

    Of `wait_replicas` and `wait_timeout` see RedisDriver.
    """

    def __init__(
        self,
        url: str,
        *,
        time_offset: float = 0.0,
        namespace: str | None = None,
        wait_replicas: int | None = None,
        wait_timeout: float | None = None,
    ) -> None:
        address = parse(url)
        replicas = check_replicas(
            address.wait_replicas if wait_replicas is None else wait_replicas,
            address.wait_timeout if wait_timeout is None else wait_timeout,
        )
        self.namespace = check_namespace(namespace or address.namespace or "protojobs")
        self.time_offset = time_offset
        self._connections = Connections(address, self.namespace, replicas)
        self._doorbell = Doorbell(self._connections)
        self._laps = Laps()

    def _run(self, verb: str, *arguments: str | bytes | int, is_kept: bool = False) -> object:
        """Take the step `scripts/<verb>.lua`."""
        is_kept = is_kept or verb in KEPT
        offset = micros(self.time_offset) if self.time_offset else 0
        return self._connections.run(script(verb), offset, *arguments, is_kept=is_kept)

    def _packed(
        self, decoder: Decoder[Answer], verb: str, *arguments: str | bytes | int, is_kept: bool = False
    ) -> Answer:
        """The answer of a step that answers MessagePack."""
        answer = self._run(verb, *arguments, is_kept=is_kept)
        if not isinstance(answer, bytes):
            raise ContractBroken(f"The script {verb} answered {shown(answer)}.")
        with self._connections.translating():
            return decoder.decode(answer)

    def _letters(self, verb: str, *arguments: str | bytes | int) -> str:
        """The answer of a step that answers a letter for each item."""
        answer = self._run(verb, *arguments)
        return answer.decode() if isinstance(answer, bytes) else ""

    def _number(self, verb: str, *arguments: str | bytes | int) -> int:
        """The answer of a step that answers a number."""
        answer = self._run(verb, *arguments)
        return int(answer) if isinstance(answer, int | bytes) else 0


def check_batch(ids: Sequence[object]) -> None:
    """Refuse more than BATCH_JOBS_MAX of whatever is asked for at once."""
    if len(ids) > BATCH_JOBS_MAX:
        raise OptionInvalid(f"{len(ids)} at once are too many.", mend=f"Send at most {BATCH_JOBS_MAX}.")
