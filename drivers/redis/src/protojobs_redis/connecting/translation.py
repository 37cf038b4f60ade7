"""Translation of errors: what redis-py and the server raise becomes what the port promises, here and nowhere else."""

from __future__ import annotations

from msgspec import DecodeError
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    ClusterError,
    ConnectionError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)

from protojobs.errors import ConfigurationError, ContractBroken, ProtojobsError, StoreUnavailable
from protojobs.port.urls import scrubbed

__all__ = ["translated"]

# The first word of a server's refusal -> what to do about it. Time, or people, mend these; sending again is right.
_REPEATABLE = {
    "ASK": "The cluster is moving this namespace to another node; it answers again when all of it has moved.",
    "BUSY": "A script or function of somebody's keeps the server busy; it ends, or `SCRIPT KILL` ends it.",
    "CLUSTERDOWN": "The cluster is electing a new primary, or has lost part of its slots.",
    "LOADING": "The server is reading its data; it answers when it is done.",
    "MASTERDOWN": "The replica lost its primary; a failover is under way.",
    "MISCONF": "The server cannot save its data to disk, and takes no writes until it can: see its log.",
    "MOVED": "The namespace is on another node now; the next call goes there.",
    "NOREPLICAS": "Fewer replicas are in touch than min-replicas-to-write asks for.",
    "OOM": "The server is at its maxmemory. Raise it, or prune finished jobs; running jobs can still be settled.",
    "READONLY": "This is a replica now; the next call asks again where the primary is.",
    "TRYAGAIN": "The cluster is moving this slot; until all of it has moved, nothing is done.",
    "UNBLOCKED": "The server became a replica while we waited.",
    "UNKILLABLE": "A script of somebody's has written and cannot be stopped.",
}
_WORDS: dict[type[Exception], str] = {
    MovedError: "MOVED",  # in front of AskError, which it is one of
    AskError: "ASK",
    BusyLoadingError: "LOADING",
    MasterDownError: "MASTERDOWN",
    ClusterDownError: "CLUSTERDOWN",
    OutOfMemoryError: "OOM",
    ReadOnlyError: "READONLY",
    TryAgainError: "TRYAGAIN",
}
_WRONG_DATABASE = ("DB index is out of range", "SELECT is not allowed", "can only be 0 in cluster mode")
_REACHED = "Is the server running, and can it be reached from here?"
_CREDENTIALS = "Check the user and the password in the URL, and the user's permissions (ACL) on the server."


def translated(error: Exception, shown: str) -> ProtojobsError | None:
    """What to raise instead of `error`; None for an error that is not the store's.

    `shown` is the address for people.
    """
    if isinstance(error, ProtojobsError):
        return error
    if isinstance(error, DecodeError | UnicodeDecodeError):
        return ContractBroken(
            f"{shown} holds something that is not protojobs's: {error}.", mend="Change the namespace."
        )
    if not isinstance(error, RedisError | RedisClusterException | OSError):
        return None
    text = scrubbed(str(error) or type(error).__name__).rstrip(".?")
    return _refusal(error, text, shown) or _broken(text, shown, is_refusal=isinstance(error, ResponseError))


def _refusal(error: Exception, text: str, shown: str) -> ProtojobsError | None:
    """What people or time can mend."""
    word = _word(error, text)
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError) or word in ("NOAUTH", "NOPERM"):
        return ConfigurationError(f"{shown} does not let us in: {text}.", mend=_CREDENTIALS)
    if "Cluster mode is not enabled" in text or "cluster support disabled" in text:
        return ConfigurationError(f"{shown} is no cluster: {text}.", mend="Leave cluster=true out of the URL.")
    if any(words in text for words in _WRONG_DATABASE):
        return ConfigurationError(f"{shown}: {text}.", mend="Name another database in the URL; a cluster has only 0.")
    if word in _REPEATABLE:
        return StoreUnavailable(f"{shown} did not do it: {text}.", mend=_REPEATABLE[word])
    if isinstance(error, ConnectionError | TimeoutError | OSError | ClusterError | RedisClusterException):
        return StoreUnavailable(f"{shown} did not answer: {text}.", mend=_REACHED)
    return None


def _word(error: Exception, text: str) -> str:
    """The first word of a refusal. The library takes it off where it has a class for it, so that tells as well."""
    known = next((word for kind, word in _WORDS.items() if isinstance(error, kind)), "")
    return known or text.partition(" ")[0].rstrip(":")


def _broken(text: str, shown: str, *, is_refusal: bool) -> ContractBroken:
    if "WRONGTYPE" in text:
        mend = "Another program uses keys of this namespace: give protojobs one of its own."
        return ContractBroken(f"{shown} holds a key that is not protojobs's: {text}.", mend=mend)
    what = "refused a step" if is_refusal else "answered something strange"
    return ContractBroken(f"{shown} {what}: {text}.", mend="It would be refused again: the server says why.")
