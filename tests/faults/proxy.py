"""A TCP proxy that loses, holds back and delays what passes through it, in one thread of this process.

    with Proxy("127.0.0.1", 5432) as proxy:
        driver = create_driver(proxy.url(url))
        proxy.mode = "black hole"
        proxy.lose("reply", after=0)        # the next answer: done, and nobody hears of it

A mode is in force when its assignment returns. Mode "black hole" holds the bytes back, as a cut cable does: TCP sends
them again when it is whole, so a server may do much later what its client has long given up.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

__all__ = ["Mode", "Proxy"]

Mode: TypeAlias = Literal["pass", "mute", "black hole", "refuse"]
MODES: tuple[Mode, ...] = ("pass", "mute", "black hole", "refuse")
CONNECTIONS_MAX = 300
BUFFER_BYTES_MAX = 1 << 20
CHUNK_BYTES = 1 << 16
OBEYS_WITHIN_S = 5.0


class _Flow:
    """One direction of one connection."""

    def __init__(self, *, is_reply: bool) -> None:
        self.is_reply = is_reply
        self.waiting: deque[tuple[float, bytes]] = deque()  # (not before, bytes)
        self.size = 0
        self.has_ended = self.is_shut = False


class _Link:
    """A client's connection, and ours to the server."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.server: socket.socket | None = None  # none yet: accepted in a black hole
        self.is_connected = self.is_holed = self.is_closed = False
        self.requests, self.replies = _Flow(is_reply=False), _Flow(is_reply=True)


class Proxy:
    """Listens on a port of its own, and passes on to `host`:`port` what its mode lets through."""

    def __init__(self, host: str, port: int) -> None:
        self.delay_s = 0.0  # added to each reply
        self.lost = 0  # how often `lose` has struck
        self.swallowed = 0  # bytes of replies that nobody got
        self._target = (host, port)
        self._mode: Mode = "pass"
        self._losing: dict[str, int] = {}
        self._links: set[_Link] = set()
        self._orders: deque[Callable[[], None]] = deque()
        self._is_closed = False
        self._now = 0.0  # of the last round
        # Never listens: in mode "refuse" it keeps the port ours.
        self._place = _bound(0)
        self.port: int = self._place.getsockname()[1]
        self._ear: socket.socket | None = None
        self._waker, self._wakened = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._loop, name=f"proxy-{self.port}", daemon=True)

    def __enter__(self) -> Proxy:
        """Listen."""
        self._selector.register(self._wakened, selectors.EVENT_READ)
        self._open_ear()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Reset all, and end the thread."""
        self._is_closed = True
        self._waker.send(b"x")
        self._thread.join(OBEYS_WITHIN_S)
        assert not self._thread.is_alive(), "the proxy's thread does not end"
        for end in (self._place, self._waker, self._wakened):
            end.close()

    # ------------------------------------------------------------------------------------------------------ orders

    def url(self, url: str) -> str:
        """The same URL, by way of this proxy."""
        parts = urlsplit(url)
        user, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{user}{at}127.0.0.1:{self.port}").geturl()

    @property
    def mode(self) -> Mode:
        """What passes: all ("pass"), requests only ("mute"), nothing ("black hole"); "refuse" resets and refuses."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        if mode not in MODES:
            raise ValueError(f"no mode {mode!r}; there are {', '.join(MODES)}")
        self._obey(lambda: self._change(mode))

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._links)

    def cut(self) -> None:
        """Reset all connections."""
        self._obey(self._reset_all)

    def lose(self, what: Literal["request", "reply"], *, after: int = 0) -> None:
        """Let `after` more of them pass, swallow the next one, and reset its connection."""
        self._obey(lambda: self._losing.update({what: after}))

    def lose_nothing(self) -> None:
        """Take back a `lose` that has not struck."""
        self._obey(self._losing.clear)

    def _obey(self, order: Callable[[], None]) -> None:
        done = threading.Event()
        self._orders += [order, done.set]
        self._waker.send(b"x")
        if not done.wait(OBEYS_WITHIN_S):
            raise TimeoutError("the proxy's thread does not answer")

    # ---------------------------------------------------------------------------------------------------- the thread

    def _loop(self) -> None:
        while not self._is_closed:
            for key, _ in self._selector.select(self._next_due()):
                if key.fileobj is self._wakened:
                    self._wakened.recv(CHUNK_BYTES)
                elif key.fileobj is self._ear:
                    self._accept(self._ear)
                elif isinstance(link := key.data, _Link) and not link.is_closed:
                    self._read(link)
            while self._orders:
                self._orders.popleft()()
            self._now = time.monotonic()
            for link in list(self._links):
                self._advance(link)
        self._reset_all()
        self._close_ear()
        self._selector.close()

    def _next_due(self) -> float | None:
        if self._mode == "black hole":
            return None
        first = [flow.waiting[0][0] for link in self._links for flow in (link.requests, link.replies) if flow.waiting]
        # What was due in the last round, and is still here, waits for its socket.
        ahead = [max(0.0, moment - time.monotonic()) for moment in first if moment > self._now]
        return min(ahead, default=None)

    def _accept(self, ear: socket.socket) -> None:
        with contextlib.suppress(OSError):
            client, _ = ear.accept()
            if len(self._links) >= CONNECTIONS_MAX:
                _reset(client)
                return
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._links.add(_Link(client))

    def _read(self, link: _Link) -> None:
        try:
            if link.server is not None and not link.is_connected:
                if link.server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    self._reset(link)
                    return
                link.is_connected = _is_connected(link.server)
            for flow, source in ((link.requests, link.client), (link.replies, link.server)):
                if source is not None and self._may_read(link, flow):
                    with contextlib.suppress(BlockingIOError):
                        self._take(link, flow, source.recv(CHUNK_BYTES))
                if link.is_closed:
                    return
        except OSError:
            self._reset(link)

    def _may_read(self, link: _Link, flow: _Flow) -> bool:
        is_open = self._mode != "black hole" and not flow.has_ended and flow.size < BUFFER_BYTES_MAX
        return is_open and (link.is_connected or not flow.is_reply)

    def _take(self, link: _Link, flow: _Flow, data: bytes) -> None:
        if not data:
            flow.has_ended = True
            return
        what = "reply" if flow.is_reply else "request"
        if (left := self._losing.get(what)) is not None:
            self._losing[what] = left - 1
            if left == 0:
                del self._losing[what]
                self.lost += 1
                self._reset(link)
                return
        if flow.is_reply and self._mode == "mute":
            self._swallow(link, len(data))
            return
        flow.waiting.append((time.monotonic() + (self.delay_s if flow.is_reply else 0.0), data))
        flow.size += len(data)

    def _advance(self, link: _Link) -> None:
        """Send what is due, and say what to wait for."""
        try:
            if link.server is None and self._mode != "black hole":
                link.server = socket.socket()
                link.server.setblocking(False)
                link.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if link.server.connect_ex(self._target) not in (0, errno.EINPROGRESS):
                    self._reset(link)
                    return
            if self._mode != "black hole":
                if link.is_connected and link.server is not None:
                    _send(link.requests, link.server, self._now)
                _send(link.replies, link.client, self._now)
        except OSError:
            self._reset(link)
            return
        if link.requests.is_shut and link.replies.is_shut:
            self._forget(link)
            link.client.close()
            if link.server is not None:
                link.server.close()
            return
        self._watch(link, link.client, link.requests, link.replies)
        if link.server is not None:
            self._watch(link, link.server, link.replies, link.requests)

    def _watch(self, link: _Link, end: socket.socket, reads: _Flow, writes: _Flow) -> None:
        events = selectors.EVENT_READ if self._may_read(link, reads) else 0
        is_due = bool(writes.waiting) and writes.waiting[0][0] <= self._now and self._mode != "black hole"
        if is_due or (end is link.server and not link.is_connected):
            events |= selectors.EVENT_WRITE
        known = self._selector.get_map().get(end.fileno())
        if known is None and events:
            self._selector.register(end, events, link)
        elif known is not None and not events:
            self._selector.unregister(end)
        elif known is not None and known.events != events:
            self._selector.modify(end, events, link)

    # ---------------------------------------------------------------------------------------------------- the modes

    def _change(self, mode: Mode) -> None:
        self._mode = mode
        if mode == "refuse":
            self._close_ear()
            self._reset_all()
        elif self._ear is None:
            self._open_ear()
        for link in list(self._links):
            if mode == "mute" and link.replies.waiting:
                self._swallow(link, link.replies.size)
                link.replies.waiting.clear()
                link.replies.size = 0
            if mode == "pass" and link.is_holed:  # a stream with a hole must not go on
                self._reset(link)

    def _swallow(self, link: _Link, size: int) -> None:
        link.is_holed = True
        self.swallowed += size

    def _open_ear(self) -> None:
        self._ear = _bound(self.port)
        self._ear.listen(128)
        self._ear.setblocking(False)
        self._selector.register(self._ear, selectors.EVENT_READ)

    def _close_ear(self) -> None:
        if self._ear is not None:
            self._selector.unregister(self._ear)
            self._ear.close()
            self._ear = None

    def _reset_all(self) -> None:
        for link in list(self._links):
            self._reset(link)

    def _reset(self, link: _Link) -> None:
        self._forget(link)
        _reset(link.client)
        if link.server is not None:
            _reset(link.server)

    def _forget(self, link: _Link) -> None:
        link.is_closed = True
        self._links.discard(link)
        for end in (link.client, link.server):
            if end is not None and end.fileno() in self._selector.get_map():
                self._selector.unregister(end)


def _bound(port: int) -> socket.socket:
    end = socket.socket()
    end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # two of ours share the port, one of them silent
    end.bind(("127.0.0.1", port))
    return end


def _is_connected(end: socket.socket) -> bool:
    try:
        end.getpeername()
    except OSError:
        return False
    return True


def _send(flow: _Flow, sink: socket.socket, now: float) -> None:
    with contextlib.suppress(BlockingIOError):
        while flow.waiting and flow.waiting[0][0] <= now:
            due, data = flow.waiting[0]
            sent = sink.send(data)
            flow.size -= sent
            if sent < len(data):
                flow.waiting[0] = (due, data[sent:])
            else:
                flow.waiting.popleft()
    if flow.has_ended and not flow.waiting and not flow.is_shut:
        flow.is_shut = True
        with contextlib.suppress(OSError):  # the other side may be gone already
            sink.shutdown(socket.SHUT_WR)


def _reset(end: socket.socket) -> None:
    """Close with RST, not FIN: what a process hears whose peer is gone."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()
