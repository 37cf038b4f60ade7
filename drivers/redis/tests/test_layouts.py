"""Releases of different layouts on one namespace: an additive change lets the older one go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
import redis

from protojobs.entropy import fresh_id
from protojobs.errors import SchemaOutdated
from protojobs.port.lifecycle import Verb
from protojobs.port.records import NewJob, Settlement, SettleStatus, WorkerInfo
from protojobs_redis import RedisDriver
from protojobs_redis.connecting import layout
from protojobs_redis.connecting.layout import LAYOUT, Mark


@pytest.fixture
def url(make_store_url: Callable[[str], str]) -> Iterator[str]:
    address = make_store_url("valkey")
    yield address
    with closing(RedisDriver(address)) as driver, closing(client_of(address)) as client:
        client.delete(key(driver))
        driver.teardown()


def client_of(address: str) -> redis.Redis:
    return redis.Redis.from_url(address.partition("?")[0])


def key(driver: RedisDriver) -> str:
    return f"{{{driver.namespace}}}:layout"


def mark_of(address: str) -> str:
    with closing(client_of(address)) as client:
        return client.get(key(RedisDriver(address))).decode()


def become(monkeypatch: pytest.MonkeyPatch, number: int, readable_from: int) -> None:
    """From now on this process is of a release with that layout."""
    monkeypatch.setattr(layout, "LAYOUT", number)
    monkeypatch.setattr(layout, "READABLE_FROM", readable_from)


def works(driver: RedisDriver) -> None:
    driver.enqueue([NewJob(id=fresh_id(), queue="q", job_name="n", job_class="c", data="{}")])
    worker = WorkerInfo(id=fresh_id(), host="h", pid=1, queues=("q",), concurrency=1, lease_s=60)
    driver.register(worker)
    (claim,) = driver.claim(worker.id, ["q"], slots=1, limit=1)
    done = Settlement(id=claim.id, claim_seq=claim.claim_seq, reserved_by=claim.reserved_by, verb=Verb.COMPLETE)
    assert [settled.status for settled in driver.settle([done])] == [SettleStatus.APPLIED]


def test_a_release_works_on_a_newer_layout_that_says_so(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as newer:
        become(newer, LAYOUT + 1, LAYOUT)
        with closing(RedisDriver(url)) as driver:
            driver.setup()
            works(driver)
    assert mark_of(url) == f"{LAYOUT + 1} {LAYOUT}"
    for _ in range(2):  # also a process that starts again
        with closing(RedisDriver(url)) as driver:
            works(driver)
            driver.setup()
    assert mark_of(url) == f"{LAYOUT + 1} {LAYOUT}"


def test_a_newer_layout_that_does_not_is_refused_with_the_release_that_can(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as newer:
        become(newer, LAYOUT + 2, LAYOUT + 1)
        with closing(RedisDriver(url)) as driver:
            driver.setup()
    with closing(RedisDriver(url)) as driver:
        for verb in (driver.setup, driver.stats):
            with pytest.raises(SchemaOutdated, match=rf"Only a release that knows {LAYOUT + 1} can .* Upgrade"):
                verb()


def test_a_newer_release_asks_for_migrate_and_then_works_on_what_is_there(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(RedisDriver(url)) as driver:
        driver.enqueue([NewJob(id=fresh_id(), queue="waiting", job_name="n", job_class="c", data="{}")])
    become(monkeypatch, LAYOUT + 1, LAYOUT)
    with closing(RedisDriver(url)) as driver:
        with pytest.raises(SchemaOutdated, match="protojobs migrate"):
            driver.stats()
        assert mark_of(url) == str(LAYOUT)
        driver.setup()
        assert mark_of(url) == f"{LAYOUT + 1} {LAYOUT}"
        works(driver)
        assert driver.stats("waiting").pending == 1


def test_a_layout_that_cannot_stay_is_refused_and_left_as_it_is(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(RedisDriver(url)) as driver:
        driver.setup()
    become(monkeypatch, LAYOUT + 1, LAYOUT + 1)
    with closing(RedisDriver(url)) as driver, pytest.raises(SchemaOutdated, match="Transfer its jobs"):
        driver.setup()
    assert mark_of(url) == str(LAYOUT)


def test_of_two_releases_that_set_up_at_once_the_newer_one_s_mark_stays(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that has read the older mark replaces that one only."""
    with closing(RedisDriver(url)) as driver:
        driver.setup()
    become(monkeypatch, LAYOUT + 1, LAYOUT)
    with closing(RedisDriver(url)) as driver, closing(client_of(url)) as client:
        connections = driver._connections
        ask = connections._marked

        def overtaken(of: object, replaced: str) -> object:
            if replaced:
                client.set(key(driver), f"{LAYOUT + 2} {LAYOUT}")
            return ask(of, replaced)

        monkeypatch.setattr(connections, "_marked", overtaken)
        driver.setup()
    assert mark_of(url) == f"{LAYOUT + 2} {LAYOUT}"


@pytest.mark.parametrize("text", [b"", b"x", b"3 x", b"3 3 3", None])
def test_what_is_no_mark_is_none(text: bytes | None) -> None:
    assert Mark.parsed(text) is None
