"""What is looked at before the first job goes to a server: who we are, what it is, and what it would do to jobs."""

from __future__ import annotations

import contextlib
import logging
import socket
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from urllib.parse import urlsplit

import pytest
import redis
from msgspec.structs import replace

import servers
from protojobs import create_driver
from protojobs.errors import ConfigurationError, ContractBroken, SchemaOutdated, StoreUnavailable
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.records import CancelAnswer, SettleStatus
from protojobs.testing.conformance.steps import fence_of, job_of, join, lend, new_job, push, settle, settlement
from protojobs_redis import RedisDriver

Start = Callable[..., servers.Server]


@pytest.fixture
def server(start: Start) -> servers.Server:
    return start()


@pytest.fixture
def full(server: servers.Server) -> Iterator[Callable[[], None]]:
    """`full()`: from now on the server is at its memory limit."""
    with contextlib.closing(redis.Redis.from_url(server.url)) as client:
        yield lambda: client.config_set("maxmemory", 1_000_000)


def test_a_server_that_evicts_keys_is_refused_with_the_cure(start: Start) -> None:
    server = start("maxmemory-policy allkeys-lru")
    driver = RedisDriver(server.url)
    with pytest.raises(ConfigurationError, match="allkeys-lru.*CONFIG SET maxmemory-policy noeviction"):
        driver.enqueue([new_job()])
    with contextlib.closing(redis.Redis.from_url(server.url)) as client:
        assert client.dbsize() == 0
        client.config_set("maxmemory-policy", "noeviction")
    assert len(push(driver)) == 1


def test_the_policy_is_found_out_by_a_user_who_may_not_ask_for_the_settings(start: Start) -> None:
    server = start("maxmemory-policy allkeys-lru")
    with contextlib.closing(redis.Redis.from_url(server.url)) as client:
        client.execute_command("ACL SETUSER", "plain", "on", ">secret", "~*", "+@all", "-config")
        client.execute_command("ACL SETUSER", "nosy", "on", ">secret", "~*", "+@all", "-info")
        client.execute_command("ACL SETUSER", "blind", "on", ">secret", "~*", "+@all", "-info", "-config")
    for user in ("plain", "nosy"):
        with pytest.raises(ConfigurationError, match="allkeys-lru"):
            push(RedisDriver(server.url.replace("//", f"//{user}:secret@")))
    assert len(push(RedisDriver(server.url.replace("//", "//blind:secret@")))) == 1


def test_a_server_without_append_only_file_is_used_with_a_warning(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    url = start("appendonly no").url
    driver = RedisDriver(url)
    with caplog.at_level(logging.WARNING, "protojobs.redis"):
        push(driver)
        push(driver)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "append-only file" in caplog.text


@pytest.mark.parametrize("credentials", ["", ":wrong-one@", "someone:wrong-one@"])
def test_a_wrong_password_is_an_error_of_configuration_that_shows_no_password(start: Start, credentials: str) -> None:
    server = start("requirepass right-one", password="right-one")
    url = server.url.replace(":right-one@", credentials)
    driver = RedisDriver(url)
    with pytest.raises(ConfigurationError, match="password") as caught:
        driver.stats()
    assert "wrong-one" not in f"{caught.value}{driver!r}"
    assert str(caught.value).startswith(f"{url.replace(':wrong-one@', ':***@')} does not let us in: ")
    assert str(caught.value).endswith(
        ". Check the user and the password in the URL, and the user's permissions (ACL) on the server."
    )
    assert "wrong-one" not in "".join(traceback.format_exception(caught.value))
    good = RedisDriver(server.url)
    assert len(push(good)) == 1
    assert "right-one" not in repr(good)


def test_a_password_for_a_server_that_has_none_is_told_with_the_server_s_own_words(start: Start) -> None:
    """They ask a question, which takes no full stop."""
    url = start().url.replace("//", "//:wrong-one@")
    with pytest.raises(ConfigurationError) as caught:
        RedisDriver(url).stats()
    assert str(caught.value) == (
        f"{url.replace('wrong-one', '***')} does not let us in: AUTH <password> called without any password configured "
        "for the default user. Are you sure your configuration is correct. Check the user and the password in the URL, "
        "and the user's permissions (ACL) on the server."
    )


def test_a_replica_is_refused_and_its_primary_is_named(start: Start) -> None:
    primary = urlsplit(start().url)
    replica = start(f"replicaof 127.0.0.1 {primary.port}")
    with pytest.raises(ConfigurationError, match=f"replica of 127.0.0.1:{primary.port}"):
        push(RedisDriver(replica.url))


def test_a_primary_that_becomes_a_replica_is_unavailable_and_is_found_again(start: Start) -> None:
    other, server = urlsplit(start().url), start()
    driver = RedisDriver(server.url)
    push(driver)
    with contextlib.closing(redis.Redis.from_url(server.url)) as client:
        client.replicaof("127.0.0.1", other.port)
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="replica|READONLY|primary"):
                push(driver)
        client.replicaof("NO", "ONE")
    assert len(push(driver)) == 1


def test_a_full_server_takes_no_jobs_but_lets_running_ones_end(start: Start) -> None:
    server = start()
    driver = RedisDriver(server.url)
    push(driver, *[new_job() for _ in range(20)])
    worker = join(driver)
    claims = lend(driver, worker, limit=10)
    with contextlib.closing(redis.Redis.from_url(server.url)) as client:
        client.config_set("maxmemory", 1_000_000)
        with pytest.raises(StoreUnavailable, match="maxmemory"):
            push(driver, new_job())
        for claim, verb in zip(claims, [Verb.COMPLETE, Verb.FAIL, Verb.RETRY], strict=False):
            settle(driver, claim, verb)
        assert len(lend(driver, worker, limit=5)) == 5
        client.config_set("maxmemory", 0)
    assert driver.stats().total == 20
    assert len(push(driver)) == 1


def test_on_a_full_server_a_result_and_what_comes_next_are_stored_with_their_completion(
    full: Callable[[], None], server: servers.Server
) -> None:
    driver = RedisDriver(server.url)
    push(driver)
    (claim,) = lend(driver, join(driver))
    full()
    following = new_job("next")
    said = replace(settlement(claim, Verb.COMPLETE), result='"kept"', then=(following,))
    assert [answer.status for answer in driver.settle([said])] == [SettleStatus.APPLIED]
    assert [each.result for each in driver.get_results([claim.id])] == ['"kept"']
    assert job_of(driver, following.id).status is JobState.PENDING


def test_on_a_full_server_workers_keep_their_leases_and_new_ones_come(
    full: Callable[[], None], server: servers.Server
) -> None:
    driver = RedisDriver(server.url)
    push(driver, *[new_job() for _ in range(20)])
    worker = join(driver)
    (claim, *_) = lend(driver, worker, limit=10)
    full()
    driver.heartbeat(worker, {})
    driver.heartbeat(worker, {fence_of(claim): 0.5})
    assert job_of(driver, claim.id).progress == 0.5
    newcomer = RedisDriver(server.url)
    other = join(newcomer)
    newcomer.heartbeat(other, {})
    assert len(lend(newcomer, other, limit=3)) == 3
    newcomer.leave(other)
    assert len(driver.reclaim(100).jobs) == 3


def test_on_a_full_server_people_can_still_stop_things(full: Callable[[], None], server: servers.Server) -> None:
    driver = RedisDriver(server.url)
    waiting = push(driver, *[new_job() for _ in range(3)], new_job(priority=9))
    worker = join(driver)
    (claim,) = lend(driver, worker, limit=1)
    full()
    assert driver.cancel([claim.id], reason="enough") == [CancelAnswer.REQUESTED]
    assert [cancel.id for cancel in driver.heartbeat(worker, {}).cancels] == [claim.id]
    assert driver.cancel([next(job_id for job_id in waiting if job_id != claim.id)]) == [CancelAnswer.CANCELLED]
    assert driver.pause("q") is True
    assert lend(driver, worker) == []
    assert driver.resume("q") is True
    assert driver.clear("q").pending == 2


def test_keys_of_another_program_in_the_namespace_are_an_error_and_stay(valkey_url: str) -> None:
    driver = RedisDriver(valkey_url, namespace="taken")
    with contextlib.closing(redis.Redis.from_url(valkey_url)) as client:
        client.set("{taken}:rows", "mine")
        with pytest.raises(ContractBroken, match="namespace"):
            push(driver)
        assert client.get("{taken}:rows") == b"mine"
    driver.teardown()


@pytest.mark.parametrize(("layout", "cure"), [("99", "Upgrade"), ("1", "Transfer")])
def test_a_namespace_of_another_version_is_left_alone(valkey_url: str, layout: str, cure: str) -> None:
    with contextlib.closing(redis.Redis.from_url(valkey_url)) as client:
        client.set("{other}:layout", layout)
        driver = RedisDriver(valkey_url, namespace="other")
        for act in (driver.setup, partial(push, driver)):
            with pytest.raises(SchemaOutdated, match=cure):
                act()
        assert client.keys("{other}:*") == [b"{other}:layout"]
        client.delete("{other}:layout")


def test_nobody_at_the_address_is_unavailable_at_once() -> None:
    driver = RedisDriver(f"redis://user:secret@127.0.0.1:{servers.free_port()}")
    for act in (driver.setup, driver.stats, lambda: driver.wait(["q"], 0.1), lambda: push(driver)):
        with pytest.raises(StoreUnavailable) as caught:
            act()
        assert "secret" not in str(caught.value)


def test_a_server_that_never_answers_is_given_up_after_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        driver = create_driver(f"valkey://127.0.0.1:{deaf.getsockname()[1]}?socket_timeout=0.2")
        with pytest.raises(StoreUnavailable, match="(?i)timeout"):
            driver.stats()


def test_a_cluster_that_is_none_is_said_so(valkey_url: str) -> None:
    with pytest.raises(ConfigurationError, match="no cluster"):
        push(RedisDriver(f"{valkey_url.rpartition('/')[0]}?cluster=true"))


def test_a_database_that_the_server_does_not_have_is_an_error_of_configuration(
    valkey_url: str, cluster_urls: list[str]
) -> None:
    wrong = [f"{valkey_url.rpartition('/')[0]}/99999", f"{cluster_urls[0]}/1", f"{cluster_urls[0]}/1?cluster=true"]
    for url in wrong:
        with pytest.raises(ConfigurationError, match="database"):
            push(RedisDriver(url))


def test_a_cluster_is_recognised_by_any_of_its_nodes(cluster_urls: list[str]) -> None:
    for url in cluster_urls:
        driver = RedisDriver(url, namespace="recognised")
        push(driver)
        assert driver.wait(["q"], 0) is True
    assert driver.stats().pending == len(cluster_urls)
    driver.teardown()
