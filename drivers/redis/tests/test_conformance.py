"""The driver contract, on one server and on a cluster."""

from __future__ import annotations

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
