"""The driver contract, on one server and on a cluster."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from protojobs.testing.conformance import DriverConformance, DriverFactory
from protojobs_redis import RedisDriver


class OnOneNamespace(DriverConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def url(cls) -> str:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def driver_factory(cls, url: str) -> DriverFactory:
        return partial(RedisDriver, url)

    @pytest.fixture(scope="class")
    @classmethod
    def reset(cls, url: str) -> Iterator[Callable[[], None]]:
        keeper = RedisDriver(url)
        yield keeper.teardown
        keeper.teardown()
        keeper.close()

    @pytest.fixture(scope="class")
    @classmethod
    def store_url(cls, url: str) -> str:
        return url

    @pytest.fixture
    def unreachable(self) -> Callable[[], RedisDriver]:
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
            port = server.getsockname()[1]  # nobody listens there any more
        return lambda: RedisDriver(f"redis://127.0.0.1:{port}/0")


class TestValkey(OnOneNamespace):
    @pytest.fixture(scope="class")
    @classmethod
    def url(cls, valkey_url: str) -> str:
        return valkey_url


class TestValkeyCluster(OnOneNamespace):
    @pytest.fixture(scope="class")
    @classmethod
    def url(cls, cluster_urls: list[str]) -> str:
        return cluster_urls[-1]
