"""The API and the jobs, on the database that PROTOJOBS_URL names: use one for tests only."""

import asyncio
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from shop import tables
from shop.api import app
from shop.jobs import queue


@pytest.fixture
def client() -> Iterator[TestClient]:
    asyncio.run(tables.create())
    queue.driver.setup()
    queue.clear("emails")
    with TestClient(app) as client:  # with: the lifespan runs
        yield client


def test_an_order_is_confirmed_by_a_worker(client: TestClient) -> None:
    answer = client.post("/orders", params={"email": "jo@example.com"})
    assert answer.status_code == 202
    path = f"/orders/{answer.json()['order']}"
    assert client.get(path).json()["is_confirmed"] is False
    assert queue.work("emails", 10).runs == 1
    assert client.get(path).json()["is_confirmed"] is True
    assert queue.stats("emails").completed == 1


def test_an_order_that_is_refused_leaves_no_job(client: TestClient) -> None:
    assert client.post("/orders", params={"email": "nobody"}).status_code == 422
    assert queue.stats("emails").pending == 0
