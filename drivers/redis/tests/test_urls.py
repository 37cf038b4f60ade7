"""URLs: what they may say, and what no error and no log shows of them."""

from __future__ import annotations

import pytest

from protojobs import create_driver
from protojobs.errors import ConfigurationError, OptionInvalid
from protojobs_redis import RedisDriver
from protojobs_redis.connecting.urls import parse


@pytest.mark.parametrize(
    ("url", "theirs", "is_cluster"),
    [
        ("redis://host:1/2", "redis://host:1/2", False),
        ("valkey://host", "redis://host", False),
        ("rediss://:pw@host?ssl_cert_reqs=none", "rediss://:pw@host?ssl_cert_reqs=none", False),
        ("valkeys://u:p%40w@host", "rediss://u:p%40w@host", False),
        ("redis://host?cluster=true&socket_timeout=2", "redis://host?socket_timeout=2", True),
        ("redis://host?cluster=false&namespace=shop", "redis://host", False),
        ("redis+cluster://host", "redis://host", True),
        ("unix:///run/valkey.sock?db=1", "unix:///run/valkey.sock?db=1", False),
        ("valkey://cache:1/0?client_name=me@host", "redis://cache:1/0?client_name=me%40host", False),  # no password
        ("redis://host?wait_replicas=2&wait_timeout=0.5", "redis://host", False),
    ],
)
def test_a_url_goes_to_the_library_without_what_is_ours(url: str, theirs: str, is_cluster: bool) -> None:
    address = parse(url)
    assert (address.url, address.is_cluster, address.sentinels) == (theirs, is_cluster, ())


def test_a_sentinel_url_names_hosts_service_and_database() -> None:
    address = parse("rediss+sentinel://user:secret@one:1,two,[::1]:3/my-jobs/4?sentinel_password=other")
    assert address.sentinels == (("one", 1), ("two", 26379), ("::1", 3))
    assert (address.service, address.is_tls) == ("my-jobs", True)
    assert address.url == "rediss://user:secret@service/4?sentinel_password=other"
    assert "secret" not in address.shown
    assert "other" not in address.shown


def test_a_cluster_s_url_may_name_several_nodes() -> None:
    address = parse("rediss://user:secret@one:7000,two,[::1]:7002?cluster=true&socket_timeout=2")
    assert address.nodes == (("one", 7000), ("two", 6379), ("::1", 7002))
    assert (address.url, address.is_cluster) == ("rediss://user:secret@one:7000?socket_timeout=2", True)
    assert "secret" not in address.shown


@pytest.mark.parametrize(
    "url",
    [
        "redis://host:port",
        "redis://host?decode_responses=true",
        "redis://host?socket_timeout=soon",
        "redis+sentinel://host:26379",
        "redis+sentinel://host:x/jobs",
        "redis+unheard://host",
        "redis://one:7000,two:7000",
        "redis://one:7000,two:x?cluster=true",
        "redis://host?wait_replicas=two",
        "redis://host?wait_replicas=-1",
        "redis://host?wait_replicas=1&wait_timeout=0",
        "redis://host?wait_replicas=1&wait_timeout=30",
        "http://host",
    ],
)
def test_a_url_that_means_nothing_is_refused_at_once(url: str) -> None:
    with pytest.raises(ConfigurationError):
        RedisDriver(url)


def test_an_option_that_the_library_does_not_know_is_refused_at_first_use(valkey_url: str) -> None:
    driver = RedisDriver(f"{valkey_url}?sockettimeout=3")
    with pytest.raises(ConfigurationError, match="sockettimeout"):
        driver.now()


@pytest.mark.parametrize("namespace", ["{", "a}b", "x" * 101, "a\nb"])
def test_a_namespace_that_would_break_the_hash_tag_is_refused(namespace: str) -> None:
    with pytest.raises(OptionInvalid):
        RedisDriver("redis://host", namespace=namespace)


def test_the_namespace_comes_from_the_argument_or_the_url_or_is_ours() -> None:
    assert RedisDriver("redis://host").namespace == "protojobs"
    assert RedisDriver("redis://host?namespace=shop").namespace == "shop"
    assert RedisDriver("redis://host?namespace=shop", namespace="other").namespace == "other"


@pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey", "valkeys", "redis+sentinel"])
def test_each_scheme_finds_the_driver_and_opens_nothing(scheme: str) -> None:
    driver = create_driver(f"{scheme}://user:secret@nowhere.invalid/service")
    assert isinstance(driver, RedisDriver)
    assert "secret" not in repr(driver)
    driver.close()
