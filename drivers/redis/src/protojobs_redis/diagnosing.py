"""The health of a server: what it would do to jobs at its limits, at a restart and at a failover."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import cast

from msgspec.msgpack import Decoder
from redis.exceptions import ResponseError

from protojobs.port.diagnosis import Finding, Severity, judged
from protojobs.port.lifecycle import JobState
from protojobs_redis.connecting.clients import Server
from protojobs_redis.connecting.readiness import facts_of
from protojobs_redis.packing import moment
from protojobs_redis.runner import ScriptRunner

__all__ = ["diagnose", "in_front", "oldest_ended"]

MEMORY_SHARE_MAX = 0.8  # of what the server may use
CLIENTS_SHARE_MAX = 0.8
LAG_MAX_S = 10
KEYS_SHOWN_MAX = 10
_QUEUES_MAX = 1_000  # queues of which the keys are looked at
_QUEUES_STEP = 200  # queues that one script looks at
_STATES = (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)

_keys = Decoder(list[str])
_oldest = Decoder(tuple[str, tuple[float, float, float]])

Facts = Mapping[str, object]


def diagnose(scripts: ScriptRunner) -> list[Finding]:
    """What the server would do to jobs at its limits, at a restart and at a failover."""
    connections = scripts.connections
    with connections.translating():
        server = connections.server()
        facts = facts_of(server)
        findings = [*_eviction(facts), *_persistence(facts, server)]
    findings.append(_of_keys(scripts.decoded(_keys, "keys", _QUEUES_MAX, KEYS_SHOWN_MAX)))
    if "used_memory" in facts:
        replicas = _replicas(facts, connections.wait_replicas)
        return [*findings, *_version(facts), *_memory(facts), *_clients(facts), *replicas]
    hidden = Finding(
        code="not_examined",
        severity=Severity.NOTE,
        what="This user may not send INFO: memory, clients and replicas were not looked at.",
        mend="ACL SETUSER ... +info, if you want to know.",
    )
    return [*findings, hidden]


def in_front(scripts: ScriptRunner, job_id: str, counted_max: int) -> int:
    """How many due jobs would be claimed before this one."""
    return scripts.number("in_front", job_id, counted_max)


def oldest_ended(scripts: ScriptRunner) -> Mapping[JobState, datetime]:
    """When the first job that is kept in each state ended."""
    oldest: dict[JobState, datetime] = {}
    after = ""
    while True:
        after, moments = scripts.decoded(_oldest, "oldest_ended", after, _QUEUES_STEP)
        for state, micros in zip(_STATES, moments, strict=True):
            if micros:
                ended_at = moment(int(micros))
                oldest[state] = min(oldest.get(state, ended_at), ended_at)
        if not after:
            return oldest


def _of_keys(spoilt: list[str]) -> Finding:
    """Keys of queues that something other than protojobs has written."""
    return judged(
        "keys",
        f"Not protojobs's: {', '.join(spoilt)}."
        if spoilt
        else "The keys of the queues are of the types that they should be.",
        is_good=not spoilt,
        bad=Severity.ERROR,
        why="What such a key held is lost, and nothing can be kept under it. Other queues go on.",
        mend="Delete it (DEL), and give the other program another database or namespace. Jobs whose lane is lost are"
        " shown in the state unreadable: `protojobs jobs cancel` ends them; push them again.",
    )


def _eviction(facts: Facts) -> Iterator[Finding]:
    policy = facts.get("maxmemory_policy", "unknown")
    yield judged(
        "maxmemory_policy",
        f"maxmemory-policy is {policy}.",
        is_good=policy == "noeviction",
        bad=Severity.NOTE if policy == "unknown" else Severity.ERROR,
        why="Any other policy deletes jobs without a word at the memory limit.",
        mend="CONFIG SET maxmemory-policy noeviction, and the same in the configuration.",
    )
    if (evicted := _number(facts, "evicted_keys")) > 0:
        yield Finding(
            code="evicted_keys",
            severity=Severity.ERROR,
            what=f"The server has evicted {evicted:,} keys since it started.",
            why="Jobs may have been among them.",
            mend="Set noeviction, and give the server more memory.",
        )


def _persistence(facts: Facts, server: Server) -> Iterator[Finding]:
    """What a restart, or a power cut, leaves of the jobs."""
    if "aof_enabled" not in facts:
        return
    is_logged = _number(facts, "aof_enabled") == 1
    fsync, snapshots = _config(server, "appendfsync"), _config(server, "save")
    lost = {"everysec": "about a second of pushes", "no": "whatever the kernel had not written, up to half a minute"}
    if is_logged:
        yield Finding(
            code="persistence",
            severity={"always": Severity.OK, "no": Severity.WARNING}.get(fsync, Severity.NOTE),
            what=f"The append-only file is on, with appendfsync {fsync or 'unknown'}.",
            why=f"A power cut loses {lost.get(fsync, 'about a second of pushes, or nothing with always')}.",
            mend="" if fsync == "always" else "CONFIG SET appendfsync always, where every push must last.",
        )
    else:
        yield Finding(
            code="persistence",
            severity=Severity.WARNING if snapshots else Severity.ERROR,
            what=f"No append-only file is kept, {f'only snapshots ({snapshots})' if snapshots else 'and no snapshot'}.",
            why="A restart loses every job since the last snapshot." if snapshots else "A restart loses every job.",
            mend="CONFIG SET appendonly yes, and the same in the configuration.",
        )
    broken = [name for name in ("aof_last_write_status", "rdb_last_bgsave_status") if facts.get(name, "ok") != "ok"]
    yield judged(
        "write_errors",
        f"Writing to disk fails: {', '.join(broken)}." if broken else "What was last written to disk was written well.",
        is_good=not broken,
        bad=Severity.ERROR,
        why="The server refuses pushes while it cannot write, or loses them at the next restart.",
        mend="Look at the server's log: is the disk full?",
    )


def _version(facts: Facts) -> Iterator[Finding]:
    name = "Valkey" if "valkey_version" in facts else "Redis"
    version = facts.get("valkey_version") or facts.get("redis_version", "unknown")
    yield Finding(code="version", severity=Severity.OK, what=f"The server is {name} {version}.")


def _memory(facts: Facts) -> Iterator[Finding]:
    used, limit = _number(facts, "used_memory"), _number(facts, "maxmemory")
    most = limit or _number(facts, "total_system_memory")
    share = used / most if most else 0.0
    yield judged(
        "memory",
        f"{used / 2**20:,.0f} MiB are used of {most / 2**20:,.0f} MiB{' (maxmemory)' if limit else ' that there are'}.",
        is_good=share <= MEMORY_SHARE_MAX,
        why="At maxmemory every push is refused; beyond what the machine has, the kernel kills the server.",
        mend="More memory; shorter retention and `protojobs prune`; or a larger maxmemory.",
    )


def _clients(facts: Facts) -> Iterator[Finding]:
    used, most = _number(facts, "connected_clients"), _number(facts, "maxclients")
    yield judged(
        "max_connections",
        f"{used:,} of {most:,} connections are in use.",
        is_good=not most or used <= most * CLIENTS_SHARE_MAX,
        why="Beyond it a worker that starts, or a push, is refused.",
        mend="CONFIG SET maxclients to more, or use fewer processes.",
    )


def _replicas(facts: Facts, wanted: int) -> Iterator[Finding]:
    """What a failover leaves of the jobs."""
    number = _number(facts, "connected_slaves")
    replicas = [cast("Facts", value) for name, value in facts.items() if _is_replica(name, value)]
    lag_s = max((_number(replica, "lag") for replica in replicas), default=0)
    yield judged(
        "replicas",
        f"{number} replicas are connected, and wait_replicas asks for {wanted}.",
        is_good=number >= wanted,
        bad=Severity.ERROR,
        why="Every push is refused while fewer replicas have it than are asked for.",
        mend="Start the replicas, or lower wait_replicas.",
    )
    if number:
        yield judged(
            "replica_lag",
            f"The replicas are at most {lag_s} s behind.",
            is_good=lag_s <= LAG_MAX_S,
            why="A failover loses what no replica has.",
            mend="Look at the replicas and the network between.",
        )
        yield judged(
            "failover",
            f"A push waits for {wanted} of {number} replicas.",
            is_good=wanted > 0,
            bad=Severity.NOTE,
            why="A failover loses the pushes of the moments before it.",
            mend="Add ?wait_replicas=1 to the URL, where every push must last.",
        )


def _is_replica(name: str, value: object) -> bool:
    return name.startswith("slave") and name[5:].isdigit() and isinstance(value, Mapping)


def _number(facts: Facts, name: str) -> int:
    value = facts.get(name, 0)
    return int(value) if isinstance(value, int | float | str) and str(value).isdigit() else 0


def _config(server: Server, name: str) -> str:
    """A setting of the server; empty where it is, or where this user may not ask."""
    try:
        settings = cast("Mapping[str, object]", server.execute_command("CONFIG GET", name))
    except ResponseError:
        return ""
    return str(next(iter(settings.values()), ""))
