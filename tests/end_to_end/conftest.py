"""One store of each kind for the end-to-end tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from protojobs import create_driver
from protojobs.port.driver import Store

sys.path.insert(0, str(Path(__file__).parent))

SHARED_STORES = ("sqlite", "postgresql", "mariadb", "valkey")


@pytest.fixture(params=SHARED_STORES)
def store_url(request: pytest.FixtureRequest, make_store_url: Callable[[str], str]) -> str:
    """An empty store that several processes share."""
    return make_store_url(request.param)


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """A driver on it, set up."""
    driver = create_driver(store_url)
    driver.setup()
    yield driver
    driver.close()
