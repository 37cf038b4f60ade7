"""What must be true of a server before the first job goes there: it is a primary, and it never evicts a key."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

from redis.exceptions import NoPermissionError, ResponseError

from protojobs.errors import ConfigurationError, ProtojobsError, StoreUnavailable

__all__ = ["Node", "check_server", "facts_of"]

_log = logging.getLogger("protojobs.redis")


class Node(Protocol):
    """One server, as redis-py's client shows it."""

    def execute_command(self, *args: str) -> object:
        """The server's answer."""
        ...


def facts_of(node: Node) -> Mapping[str, object]:
    """What INFO says; where that is forbidden, the little that CONFIG says; else nothing, with a warning."""
    try:
        found = node.execute_command("INFO")
        if isinstance(found, Mapping):
            return {str(name): value for name, value in found.items()}
    except (NoPermissionError, ResponseError) as error:
        if not _is_forbidden(error):
            raise
    facts: dict[str, object] = {}
    for setting, name in (("maxmemory-policy", "maxmemory_policy"), ("appendonly", "aof_enabled")):
        try:
            found = node.execute_command("CONFIG GET", setting)
        except (NoPermissionError, ResponseError) as error:
            if not _is_forbidden(error):
                raise
            continue
        if isinstance(found, Mapping):
            value = str(next(iter(found.values()), ""))
            facts[name] = {"yes": 1, "no": 0}.get(value, value)
    return facts


def check_server(facts: Mapping[str, object], place: str, *, was_ready: bool) -> None:
    """Raise unless jobs are safe there. `was_ready`: it was the primary before, so this is a failover, which passes."""
    if facts.get("role") == "slave":
        raise _is_replica(facts, place, was_ready=was_ready)
    policy = facts.get("maxmemory_policy")
    if policy is None:
        _log.warning("%s forbids INFO and CONFIG: whether it may evict jobs (maxmemory-policy) is unknown", place)
    elif policy != "noeviction":
        raise ConfigurationError(
            f"{place} has maxmemory-policy {policy}: at its memory limit it would delete jobs without a word.",
            mend="Set it to noeviction (CONFIG SET maxmemory-policy noeviction, and the same in its configuration).",
        )
    if facts.get("aof_enabled") == 0 and not was_ready:
        _log.warning(
            "%s keeps no append-only file: a restart loses every job since its last snapshot, or all of them."
            " Set appendonly yes (with appendfsync everysec a power cut loses about one second)",
            place,
        )


def _is_replica(facts: Mapping[str, object], place: str, *, was_ready: bool) -> ProtojobsError:
    primary = f"{facts.get('master_host', '?')}:{facts.get('master_port', '?')}"
    message = f"{place} is a read-only replica of {primary}."
    if was_ready:
        return StoreUnavailable(message, mend="A failover is under way; the next call asks again.")
    return ConfigurationError(message, mend="Give the URL of the primary, of its Sentinels, or of the cluster.")


def _is_forbidden(error: ResponseError) -> bool:
    return isinstance(error, NoPermissionError) or "unknown command" in str(error).lower()
