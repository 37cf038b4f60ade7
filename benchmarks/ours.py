"""protojobs as it is used: its public interface, its defaults."""

from __future__ import annotations

import os
import threading

import bench_jobs
from protojobs import JobQueue, StopToken, create_driver

CONCURRENCY_VARIABLE = "PROTOJOBS_BENCH_CONCURRENCY"  # of `work` here; a worker process is told by its option


class Ours:
    """A `Subject`."""

    def __init__(self, url: str) -> None:
        self._queue = JobQueue(create_driver(url), {"concurrency": int(os.environ[CONCURRENCY_VARIABLE])})

    def setup(self) -> None:
        self._queue.driver.setup()

    def push(self) -> None:
        self._queue.push(bench_jobs.noop)

    def push_stamp(self, sent_ns: int) -> None:
        self._queue.push(bench_jobs.stamp, {"sent_ns": sent_ns})

    def push_many(self, count: int) -> None:
        self._queue.push_many(bench_jobs.noop.bind() for _ in range(count))

    def left(self) -> int:
        found = self._queue.driver.stats("default")
        return found.pending + found.processing

    def work(self, over: threading.Event) -> None:
        """For the memory store; others are worked by `protojobs worker`."""
        stop = StopToken()
        worker = threading.Thread(target=self._queue.work, kwargs={"stop": stop})
        worker.start()
        over.wait()
        stop.stop()
        worker.join()
