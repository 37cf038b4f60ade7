"""The pages and the jobs, on the database that PROTOJOBS_URL names: use one for tests only."""

from collections.abc import Iterator

import pytest
from flask import Flask
from shop import create_app
from shop.extensions import jobs

from protojobs import JobQueue


@pytest.fixture
def app() -> Flask:
    app = create_app()
    app.test_cli_runner().invoke(args=["create-tables"])
    return app


@pytest.fixture
def queue(app: Flask) -> Iterator[JobQueue]:
    with app.app_context():
        queue = jobs.queue
    queue.driver.setup()
    queue.clear("emails")
    yield queue
    queue.close()


def test_an_order_is_confirmed_by_a_worker(app: Flask, queue: JobQueue) -> None:
    client = app.test_client()
    answer = client.post("/orders?email=jo@example.com")
    assert answer.status_code == 202
    path = f"/orders/{answer.json['order']}"
    assert client.get(path).json["is_confirmed"] is False
    assert queue.work("emails", 10).runs == 1
    assert client.get(path).json["is_confirmed"] is True
    assert queue.stats("emails").completed == 1


def test_an_order_that_is_refused_leaves_no_job(app: Flask, queue: JobQueue) -> None:
    assert app.test_client().post("/orders?email=nobody").status_code == 422
    assert queue.stats("emails").pending == 0
