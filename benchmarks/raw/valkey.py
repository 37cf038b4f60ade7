"""redis-py and one script: it deletes the batch that has run and takes the next one, in one round trip."""

from __future__ import annotations

import os
from collections.abc import Sequence

import redis

WAITING = "waiting"
TAKEN = "taken:"  # and the worker's process id: each has a list of its own
NEXT = """
redis.call('DEL', KEYS[2])
local jobs = redis.call('LPOP', KEYS[1], ARGV[1])
if jobs then redis.call('RPUSH', KEYS[2], unpack(jobs)) end
return jobs
"""


class Valkey:
    """A `Store` in two kinds of lists."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url, socket_timeout=30)
        self._next = self._client.register_script(NEXT)
        self._taken = f"{TAKEN}{os.getpid()}"

    def setup(self) -> None:
        pass

    def put(self, body: str) -> None:
        self._client.rpush(WAITING, body)

    def put_many(self, bodies: Sequence[str]) -> None:
        pipe = self._client.pipeline(transaction=False)
        for body in bodies:
            pipe.rpush(WAITING, body)
        pipe.execute()

    def left(self) -> int:
        return sum(self._client.llen(key) for key in self._client.keys(f"{TAKEN}*")) + self._client.llen(WAITING)

    def take(self, limit: int) -> Sequence[tuple[int, str]]:
        jobs = self._next(keys=[WAITING, self._taken], args=[limit])
        return [(0, job.decode()) for job in jobs or ()]

    def forget(self, jobs: Sequence[tuple[int, str]]) -> None:
        pass  # `take` does, for the batch before; it comes at once

    def wait(self) -> None:
        self._client.blmove(WAITING, WAITING, 1, "LEFT", "LEFT")  # until there is one; it stays where it is


def open_store(url: str, synchronous: str) -> Valkey:
    """`synchronous` is SQLite's affair: here the server's settings say when a write is on disk."""
    return Valkey(url)
