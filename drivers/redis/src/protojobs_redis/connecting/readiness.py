"""Checks of a server before the first job goes there: it is a primary, and it never evicts a key."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import cast

from redis.exceptions import NoPermissionError, ResponseError

from protojobs.errors import ConfigurationError, ProtojobsError, StoreUnavailable
from protojobs_redis.connecting.clients import Client

__all__ = ["check_server", "facts_of"]

_log = logging.getLogger("protojobs.redis")


def facts_of(node: Client) -> Mapping[str, object]:
    """What INFO says; where that is forbidden, the little that CONFIG says; else nothing, with a warning."""
    facts = _reply(node, "INFO")
    if facts:
        return facts
    policy = _reply(node, "CONFIG GET", "maxmemory-policy")
    return {"maxmemory_policy": next(iter(policy.values()))} if policy else {}


def _reply(node: Client, *command: str) -> Mapping[str, object]:
    """The reply to a command that the user may be forbidden to send: then nothing."""
    try:
        return cast("Mapping[str, object]", node.execute_command(*command))
    except ResponseError as error:
        if isinstance(error, NoPermissionError) or "unknown command" in str(error).lower():
            return {}
        raise


def check_server(facts: Mapping[str, object], shown: str, *, was_ready: bool) -> None:
    """Raise unless jobs are safe there. `was_ready`: it was the primary before, so this is a failover, which passes."""
    if facts.get("role") == "slave":
        raise _is_replica(facts, shown, was_ready=was_ready)
    policy = facts.get("maxmemory_policy")
    if policy is None:
        _log.warning("%s forbids INFO and CONFIG: whether it may evict jobs (maxmemory-policy) is unknown", shown)
    elif policy != "noeviction":
        raise ConfigurationError(
            f"{shown} has maxmemory-policy {policy}: at its memory limit it would delete jobs without a word.",
            mend="Set it to noeviction (CONFIG SET maxmemory-policy noeviction, and the same in its configuration).",
        )
    if facts.get("aof_enabled") == 0 and not was_ready:
        _log.warning(
            "%s keeps no append-only file: a restart loses every job since its last snapshot, or all of them."
            " Set appendonly yes (with appendfsync everysec a power cut loses about one second)",
            shown,
        )


def _is_replica(facts: Mapping[str, object], shown: str, *, was_ready: bool) -> ProtojobsError:
    primary = f"{facts.get('master_host', '?')}:{facts.get('master_port', '?')}"
    message = f"{shown} is a read-only replica of {primary}."
    if was_ready:
        return StoreUnavailable(message, mend="A failover is under way; the next call asks again.")
    return ConfigurationError(message, mend="Give the URL of the primary, of its Sentinels, or of the cluster.")
