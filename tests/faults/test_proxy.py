"""The proxy of the fault tests does what its modes say: else those tests would show nothing."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from faults.crew import wait_for
from faults.proxy import Proxy

SOON_S = 3.0
SILENCE_S = 0.2


class Shouting(socketserver.BaseRequestHandler):
    """Answers each message in capitals, and remembers it."""

    heard: list[bytes]

    def handle(self) -> None:
        try:
            while data := self.request.recv(1 << 20):
                type(self).heard.append(data)
                self.request.sendall(data.upper())
        except OSError:
            pass


@pytest.fixture
def heard() -> list[bytes]:
    return []


@pytest.fixture
def proxy(heard: list[bytes]) -> Iterator[Proxy]:
    handler = type("Handler", (Shouting,), {"heard": heard})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        with Proxy("127.0.0.1", server.server_address[1]) as proxy:
            yield proxy
        server.shutdown()
        thread.join(SOON_S)


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=SOON_S)


def ask(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    return client.recv(1 << 20)


def is_silent(client: socket.socket) -> bool:
    client.settimeout(SILENCE_S)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(SOON_S)
    return False


def test_a_url_leads_through_the_proxy_with_its_other_parts_kept(proxy: Proxy) -> None:
    url = proxy.url("mariadb://me:pa%40ss@db.example:3306/jobs?charset=utf8")
    assert url == f"mariadb://me:pa%40ss@127.0.0.1:{proxy.port}/jobs?charset=utf8"
    assert proxy.url("redis://localhost/3") == f"redis://127.0.0.1:{proxy.port}/3"


def test_both_ways_pass_and_an_end_of_one_side_reaches_the_other(proxy: Proxy) -> None:
    with connect(proxy) as client:
        assert ask(client, b"hello") == b"HELLO"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(10) == b""
    wait_for("the end of the connection", lambda: proxy.connections == 0, SOON_S)


def test_much_passes_whole_however_slowly_it_is_read(proxy: Proxy) -> None:
    much = b"x" * (8 << 20)
    with connect(proxy) as client:
        sender = threading.Thread(target=client.sendall, args=(much,), daemon=True)
        sender.start()
        time.sleep(0.1)
        got = 0
        while got < len(much):
            got += len(client.recv(1 << 16))
        sender.join(SOON_S)
    assert got == len(much)


def test_a_cut_resets_what_is_open_and_new_connections_pass(proxy: Proxy) -> None:
    with connect(proxy) as client, connect(proxy) as other:
        assert ask(client, b"a") == b"A"
        proxy.cut()
        for end in (client, other):
            with pytest.raises(ConnectionResetError):
                end.recv(1)
    with connect(proxy) as client:
        assert ask(client, b"b") == b"B"


def test_a_mute_proxy_delivers_requests_and_swallows_the_replies(proxy: Proxy, heard: list[bytes]) -> None:
    with connect(proxy) as client:
        proxy.mode = "mute"
        client.sendall(b"done, unheard")
        wait_for("the reply", lambda: proxy.swallowed == len(b"done, unheard"), SOON_S)
        assert heard == [b"done, unheard"]
        assert is_silent(client)


def test_after_a_hole_the_stream_is_reset_and_others_go_on(proxy: Proxy) -> None:
    with connect(proxy) as client, connect(proxy) as idle:
        assert ask(idle, b"a") == b"A"
        proxy.mode = "mute"
        client.sendall(b"b")
        wait_for("the reply", lambda: proxy.swallowed > 0, SOON_S)
        proxy.mode = "pass"
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert ask(idle, b"c") == b"C"


def test_a_black_hole_keeps_connections_and_takes_new_ones_and_lets_nothing_through(
    proxy: Proxy, heard: list[bytes]
) -> None:
    with connect(proxy) as client:
        assert ask(client, b"a") == b"A"
        proxy.mode = "black hole"
        with connect(proxy) as new:
            client.sendall(b"b")
            new.sendall(b"c")
            assert is_silent(client) and is_silent(new)
            assert heard == [b"a"]
            proxy.mode = "pass"  # the cable is whole again: what was on its way arrives
            assert client.recv(10) == b"B"
            assert new.recv(10) == b"C"


def test_refusing_resets_old_connections_and_refuses_new_ones_at_once(proxy: Proxy) -> None:
    with connect(proxy) as client:
        assert ask(client, b"a") == b"A"
        proxy.mode = "refuse"
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    began = time.monotonic()
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    assert time.monotonic() - began < 1
    proxy.mode = "pass"
    with connect(proxy) as client:
        assert ask(client, b"b") == b"B"


def test_a_delay_is_added_to_each_reply_and_to_no_request(proxy: Proxy, heard: list[bytes]) -> None:
    proxy.delay_s = 0.4
    with connect(proxy) as client:
        began = time.monotonic()
        client.sendall(b"a")
        wait_for("the request", lambda: heard == [b"a"], 0.3)
        assert client.recv(10) == b"A"
        assert 0.4 <= time.monotonic() - began < 2


@pytest.mark.parametrize("after", [0, 1])
def test_a_lost_reply_was_made_and_takes_its_connection_with_it(proxy: Proxy, heard: list[bytes], after: int) -> None:
    with connect(proxy) as client:
        proxy.lose("reply", after=after)
        for _ in range(after):
            assert ask(client, b"a") == b"A"
        with pytest.raises(ConnectionResetError):
            ask(client, b"b")
    assert heard[-1] == b"b"
    assert proxy.lost == 1
    with connect(proxy) as client:
        assert ask(client, b"c") == b"C"


def test_a_lost_request_never_arrives(proxy: Proxy, heard: list[bytes]) -> None:
    with connect(proxy) as client:
        proxy.lose("request")
        with pytest.raises(ConnectionResetError):
            ask(client, b"b")
    assert (heard, proxy.lost) == ([], 1)


def test_a_server_that_is_away_resets_its_clients() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with Proxy("127.0.0.1", nobody.getsockname()[1]) as proxy, pytest.raises(ConnectionResetError):
            with connect(proxy) as client:  # which may hear of it already
                client.recv(1)


def test_closing_resets_everything_and_ends_the_thread(proxy: Proxy) -> None:
    before = threading.active_count()
    with Proxy("127.0.0.1", proxy.port) as second, connect(second) as client:
        assert ask(client, b"a") == b"A"
        assert threading.active_count() >= before + 1
    assert not [thread for thread in threading.enumerate() if thread.name == f"proxy-{second.port}"]


def test_a_mode_that_there_is_not_is_refused(proxy: Proxy) -> None:
    with pytest.raises(ValueError, match="no mode 'slow'"):
        proxy.mode = "slow"  # type: ignore[assignment]
