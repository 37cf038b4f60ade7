"""ScriptRunner: run a script in one namespace, and decode its reply."""

from __future__ import annotations

from typing import TypeVar

from msgspec.msgpack import Decoder

from protojobs.errors import ContractBroken, shown
from protojobs_redis.connecting.connections import Connections
from protojobs_redis.connecting.replicas import KEPT
from protojobs_redis.packing import micros
from protojobs_redis.scripting import script

__all__ = ["ScriptRunner"]

Reply = TypeVar("Reply")
Argument = str | bytes | int


class ScriptRunner:
    """The scripts of one driver object. `time_offset` (seconds) is added to the server's clock; 0 in production."""

    def __init__(self, connections: Connections, time_offset: float) -> None:
        self.connections = connections
        self.move(time_offset)

    def move(self, time_offset: float) -> None:
        """Take another offset from here on."""
        self.time_offset = time_offset
        self.offset = micros(time_offset)

    def run(self, name: str, *arguments: Argument, is_kept: bool = False) -> object:
        """The reply of `scripts/<name>.lua`.

        `is_kept`: replicas are waited for, if the settings ask for it. Scripts of KEPT wait without it.
        """
        return self.connections.run(script(name), self.offset, *arguments, is_kept=is_kept or name in KEPT)

    def packed(self, name: str, *arguments: Argument, is_kept: bool = False) -> bytes:
        """The reply of a script that returns MessagePack, as it came."""
        reply = self.run(name, *arguments, is_kept=is_kept)
        if not isinstance(reply, bytes):
            raise ContractBroken(f"The script {name} answered {shown(reply)}.")
        return reply

    def decoded(self, decoder: Decoder[Reply], name: str, *arguments: Argument) -> Reply:
        """The reply of a script that returns MessagePack."""
        reply = self.packed(name, *arguments)
        with self.connections.translating():
            return decoder.decode(reply)

    def letters(self, name: str, *arguments: Argument) -> str:
        """The reply of a script that returns a letter for each item."""
        reply = self.connections.run(script(name), self.offset, *arguments, is_kept=name in KEPT)
        return reply.decode() if isinstance(reply, bytes) else ""

    def number(self, name: str, *arguments: Argument) -> int:
        """The reply of a script that returns a number."""
        reply = self.run(name, *arguments)
        return int(reply) if isinstance(reply, int | bytes) else 0
