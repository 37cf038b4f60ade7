"""What a worker and its child processes say to each other: msgpack, each message behind its length in four bytes."""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from msgspec import Struct

from protojobs.config import Settings
from protojobs.port.records import Capabilities, ClaimedJob, Fence, Settlement

__all__ = [
    "Begin",
    "Begun",
    "Cancel",
    "End",
    "Ended",
    "FrameBroken",
    "FrameReader",
    "FromChild",
    "Logged",
    "OutOfPlace",
    "Progress",
    "Ready",
    "Stopping",
    "ToChild",
    "Unknown",
    "Work",
    "decode_from_child",
    "decode_to_child",
    "encode",
]

FRAME_BYTES_MAX = 64 * 1024 * 1024  # a claim holds at most 8 MiB; transforms may have made it larger
RESULT_BYTES_MAX = 8 * 1024 * 1024  # a larger result is not shown to observers
_HEAD_BYTES = 4


class FrameBroken(Exception):
    """The bytes are no message, or the message is too large."""


class Begin(Struct, frozen=True, tag=True, kw_only=True):
    """To the child, first: what to import, and how much to log."""

    path: tuple[str, ...]
    modules: tuple[str, ...]
    settings: Settings
    """Without what concerns the store or schedules."""
    store: Capabilities
    log_levels: tuple[int, int]  # of the root logger, and of ours


class Work(Struct, frozen=True, tag=True, kw_only=True):
    """To the child: run this. `module` and `job_class` are of the worker's own definition, not of the store."""

    claimed: ClaimedJob
    module: str
    job_class: str
    is_guest: bool = False  # a suspect, which else would run in the worker itself


class Cancel(Struct, frozen=True, tag=True):
    """To the child: somebody wants this run to end, let it know."""

    fence: Fence


class Stopping(Struct, frozen=True, tag=True):
    """To the child: the worker wants to stop, let this run know."""

    fence: Fence


class End(Struct, frozen=True, tag=True):
    """To the child: end the run and yourself. It is killed when that takes too long."""


class Ready(Struct, frozen=True, tag=True):
    """From the child: its imports are done."""


class Begun(Struct, frozen=True, tag=True):
    """From the child: it has taken the job. Should it die now, that speaks against the job."""


class Progress(Struct, frozen=True, tag=True):
    """From the child: how much is done."""

    fence: Fence
    share: float


class Ended(Struct, frozen=True, tag=True, kw_only=True):
    """From the child: how the run has ended. The exception crosses as the name of its class and its text."""

    settlement: Settlement
    result: bytes | None  # as JSON; None for what JSON cannot hold
    error: tuple[str, str] | None
    duration_s: float
    was_run: bool
    resident_bytes: int  # of the child, now; 0 where the system does not tell


class Logged(Struct, frozen=True, tag=True, kw_only=True):
    """From the child: a log record, for the worker to log. `created` is in seconds since 1970."""

    name: str
    level: int
    message: str
    created: float
    exception: str
    job_id: str | None
    attempt: int | None


class Unknown(Struct, frozen=True, tag=True):
    """From the child: its imports have not brought this very job."""


class OutOfPlace(Struct, frozen=True, tag=True):
    """From the child: the guest needs what only the worker has. What it had done in transactions is rolled back."""


ToChild: TypeAlias = Begin | Work | Cancel | Stopping | End
FromChild: TypeAlias = Ready | Begun | Progress | Logged | Ended | Unknown | OutOfPlace

_to_child: msgspec.msgpack.Decoder[ToChild] = msgspec.msgpack.Decoder(ToChild)
_from_child: msgspec.msgpack.Decoder[FromChild] = msgspec.msgpack.Decoder(FromChild)


def encode(message: ToChild | FromChild) -> bytes:
    """The message with its length in front. Raises FrameBroken when it is too large."""
    body = msgspec.msgpack.encode(message)
    if len(body) > FRAME_BYTES_MAX:
        raise FrameBroken(f"a message of {len(body):,} bytes")
    return len(body).to_bytes(_HEAD_BYTES, "big") + body


def decode_to_child(body: bytes) -> ToChild:
    """What the worker said. Raises FrameBroken."""
    try:
        return _to_child.decode(body)
    except msgspec.DecodeError as error:
        raise FrameBroken(str(error)) from error


def decode_from_child(body: bytes) -> FromChild:
    """What the child said. Raises FrameBroken."""
    try:
        return _from_child.decode(body)
    except msgspec.DecodeError as error:
        raise FrameBroken(str(error)) from error


class FrameReader:
    """Puts together what a pipe gives in pieces."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, piece: bytes) -> None:
        """The next bytes of the pipe."""
        self._bytes += piece

    def next(self) -> bytes | None:
        """The next whole message, or None until there is one. Raises FrameBroken."""
        if len(self._bytes) < _HEAD_BYTES:
            return None
        size = int.from_bytes(self._bytes[:_HEAD_BYTES], "big")
        if size > FRAME_BYTES_MAX:
            raise FrameBroken(f"a message of {size:,} bytes")
        if len(self._bytes) < _HEAD_BYTES + size:
            return None
        body = bytes(self._bytes[_HEAD_BYTES : _HEAD_BYTES + size])
        del self._bytes[: _HEAD_BYTES + size]
        return body
