"""The chain of real servers itself: what it promises to the tests that lean on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import servers

HERE = Path(__file__).parent


def test_one_server_of_a_kind_serves_the_whole_run() -> None:
    assert servers.shared("valkey").url == servers.shared("valkey").url


def test_each_database_is_new_and_ones_own(make_store_url) -> None:
    first, second = make_store_url("postgresql"), make_store_url("postgresql")
    assert first != second
    servers.execute(first, "create table t (n int)")
    servers.execute(second, "create table t (n int)")


def test_a_server_that_crashes_answers_again_at_the_same_url_with_its_data() -> None:
    import redis

    with servers.started("valkey") as server:
        redis.Redis.from_url(server.url).set("kept", "yes")
        server.crash()
        assert redis.Redis.from_url(server.url).get("kept") == b"yes"


def test_a_frozen_server_does_not_answer_until_it_is_thawed() -> None:
    with servers.started("valkey") as server:
        server.freeze()
        with pytest.raises(servers.Unavailable):
            servers.answers("valkey", server.url, limit=0.1)
        server.thaw()
        servers.answers("valkey", server.url, limit=20)


def test_a_server_ends_with_its_owner_even_when_that_is_killed() -> None:
    program = """
import servers, time
with servers.started("valkey") as server:
    print(server.reaper, server.pid, server.scratch, flush=True)
    time.sleep(60)
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PROTOJOBS_TEST_")}
    owner = subprocess.Popen(
        [sys.executable, "-c", program], cwd=HERE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert owner.stdout is not None
    reaper, server, scratch = owner.stdout.readline().split()
    owner.send_signal(signal.SIGKILL)
    owner.wait(10)
    servers.until(lambda: not servers.is_alive(int(reaper)), "the reaper lives on", limit=20)
    assert not servers.is_alive(int(server))
    assert not Path(scratch).exists()


def test_without_any_source_the_error_names_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> servers.Server:
        raise servers.Unavailable("not on this machine")

    monkeypatch.delenv("PROTOJOBS_TEST_POSTGRESQL_URL", raising=False)
    monkeypatch.delenv("PROTOJOBS_TEST_SOURCES", raising=False)
    for source in ("docker", "local", "wheel"):
        monkeypatch.setitem(servers.CHAIN, ("postgresql", source), missing)
    with pytest.raises(servers.Unavailable) as caught:
        servers.start("postgresql")
    assert "PROTOJOBS_TEST_POSTGRESQL_URL is not set" in str(caught.value)
    for source in ("docker", "local", "wheel"):
        assert f"{source}: not on this machine" in str(caught.value)


def test_a_given_url_that_does_not_answer_is_an_error_and_no_reason_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROTOJOBS_TEST_REDIS_URL", f"redis://127.0.0.1:{servers.free_port()}")
    monkeypatch.delenv("PROTOJOBS_TEST_SOURCES", raising=False)
    monkeypatch.setattr(
        servers, "given", lambda kind: servers.answers(kind, os.environ["PROTOJOBS_TEST_REDIS_URL"], limit=0.2)
    )
    began = time.monotonic()
    with pytest.raises(servers.Unavailable, match="PROTOJOBS_TEST_REDIS_URL does not answer"):
        servers.start("valkey")
    assert time.monotonic() - began < 10
