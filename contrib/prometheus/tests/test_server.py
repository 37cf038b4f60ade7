"""A worker's `/metrics`: where it listens, what it answers, and what it does not let a client do to it."""

from __future__ import annotations

import http.client
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from protojobs import JobQueue, create_driver
from protojobs.cli import main
from protojobs.cli.exits import Exit
from protojobs_prometheus import server as module
from protojobs_prometheus.server import CONNECTIONS_MAX, HEAD_BYTES_MAX, MetricsServer

WAIT_S = 20.0


@pytest.fixture
def serve() -> Iterator[Callable[..., MetricsServer]]:
    made: list[MetricsServer] = []

    def start(render: Callable[[], bytes] = lambda: b"protojobs_up 1\n", ports: range = range(1)) -> MetricsServer:
        made.append(MetricsServer(render, "127.0.0.1", ports))
        made[-1].start()
        assert made[-1].listening.wait(WAIT_S)
        return made[-1]

    yield start
    for one in made:
        one.close()


def ask(server: MetricsServer, path: str = "/metrics", method: str = "GET") -> tuple[int, bytes, str | None]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_S)
    connection.request(method, path)
    answer = connection.getresponse()
    return answer.status, answer.read(), answer.getheader("Content-Type")


def said_to(server: MetricsServer, text: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as connection:
        connection.sendall(text)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer


def test_it_answers_the_metrics_and_says_where_they_are(serve) -> None:
    server = serve()
    assert ask(server) == (200, b"protojobs_up 1\n", "text/plain; version=0.0.4; charset=utf-8")
    assert ask(server, "/metrics?name[]=x")[0] == 200
    assert ask(server, "/")[0] == 404
    assert ask(server, "/metrics", "POST")[0] == 405
    assert ask(server, "/metrics", "HEAD")[:2] == (200, b"")


def test_what_is_no_request_gets_an_answer_and_harms_nobody(serve) -> None:
    server = serve()
    assert b"400 Bad Request" in said_to(server, b"\r\n\r\n")
    assert said_to(server, b"x" * HEAD_BYTES_MAX).startswith(b"HTTP/1.1 400")
    assert ask(server)[0] == 200


def test_a_collector_that_fails_is_an_answer_and_a_log_line(serve, caplog) -> None:
    def broken() -> bytes:
        raise RuntimeError("somebody else's collector")

    server = serve(broken)
    assert ask(server)[0] == 500
    assert "could not be collected" in caplog.text


def test_silent_clients_take_no_more_than_their_connections_and_their_time(serve, monkeypatch) -> None:
    monkeypatch.setattr(module, "CLIENT_S", 0.3)
    server = serve()
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(CONNECTIONS_MAX * 2)]
    try:
        assert ask(server)[0] == 200  # once the silent ones have had their time
        assert sum(thread.name == "protojobs-scrape" for thread in threading.enumerate()) <= CONNECTIONS_MAX
    finally:
        for one in silent:
            one.close()


def test_workers_of_one_host_share_a_range_of_ports(serve) -> None:
    free = free_port()
    first, second = serve(ports=range(free, free + 20)), serve(ports=range(free, free + 20))
    assert free <= first.port < second.port < free + 20
    assert (ask(first)[0], ask(second)[0]) == (200, 200)


def test_a_port_that_is_taken_is_tried_again_and_complained_of_once(monkeypatch, caplog) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.02)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = MetricsServer(lambda: b"", "127.0.0.1", range(taken.getsockname()[1], taken.getsockname()[1] + 1))
        with caplog.at_level(logging.ERROR):
            server.start()
            ends = time.monotonic() + WAIT_S
            while not caplog.records:
                assert time.monotonic() < ends
                time.sleep(0.01)
            assert not server.listening.wait(0.2)
    assert server.listening.wait(WAIT_S)
    server.close()
    (record,) = caplog.records
    assert "PROTOJOBS_PROMETHEUS_PORT=" in record.getMessage()


def test_starting_twice_is_starting_once(serve) -> None:
    def threads() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name == "protojobs-metrics"}

    others = threads()  # of a test before this one, which may be about to end
    server = serve()
    server.start()
    assert len(threads() - others) == 1


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def test_a_port_that_is_taken_is_told_to_a_person_at_once(sqlite_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with JobQueue(create_driver(sqlite_url)) as queue:
        queue.driver.setup()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["metrics", "--url", sqlite_url, "--serve", str(port)]) == Exit.USAGE
    assert f"Nothing can listen at 127.0.0.1, port {port}" in capsys.readouterr().err
