"""protojobs on PostgreSQL, Redis, SQLite and in memory; an adapter for peerbench (see its README).

VARIANT is the concurrency: jobs that one worker process runs at once, in threads. SQLite is durable on push
(synchronous FULL), as the driver always is.
"""

import os
import threading
import time

import base

from protojobs import JobQueue, StopToken, create_driver, job

CONCURRENCY = int(base.VARIANT or "8")
CHUNK = 1_000


def url() -> str:
    """Where this measurement's store is."""
    if base.SQLITE:
        return f"sqlite:///{base.SQLITE}"
    if base.DSN:
        return base.DSN if "://" in base.DSN else _postgresql(base.DSN)
    return base.REDIS_URL or "memory://"


def _postgresql(words: str) -> str:
    """A libpq string of keywords, as a URL."""
    said = dict(pair.split("=", 1) for pair in words.split())
    account = said.get("user", "") + (f":{said['password']}" if "password" in said else "")
    return f"postgresql://{account}@{said.get('host', '')}:{said.get('port', 5432)}/{said['dbname']}"


@job(name="noop", max_retries=3)
def noop() -> None:
    base.noop()


@job(name="stamp")
def stamp(sent_ns: int) -> None:
    base.stamp(sent_ns)


@job(name="nap", timeout=0)
def nap(seconds: float) -> None:
    base.nap(seconds)


class Peer(base.SyncPeer):
    has_bulk = True

    def setup(self):
        create_driver(url()).setup()

    def open(self):
        self.queue = JobQueue(create_driver(url()), {"concurrency": CONCURRENCY})
        self.driver = self.queue.driver

    def close(self):
        self.queue.close()

    def noop(self):
        self.queue.push(noop)

    def stamp(self, sent_ns):
        self.queue.push(stamp, {"sent_ns": sent_ns})

    def nap(self, seconds):
        self.queue.push(nap, {"seconds": seconds})

    def bulk(self, count):
        self.queue.push_many([noop.bind() for _ in range(count)])

    def left(self):
        found = self.driver.stats("default")
        return found.pending + found.processing

    def worker(self):
        os.environ["PROTOJOBS_URL"] = url()
        base.exec_program(
            "protojobs", "worker", "--app", "peer_protojobs", "--concurrency", str(CONCURRENCY), "--no-scheduler"
        )

    def inprocess(self, count):
        self.open()
        started = time.perf_counter()
        for _ in range(count):
            self.noop()
        pushed = time.perf_counter() - started
        started = time.perf_counter()
        self.queue.work(max_jobs=count)
        drained = time.perf_counter() - started
        stop = StopToken()
        worker = threading.Thread(target=self.queue.work, kwargs={"stop": stop})
        worker.start()
        sent = 0
        for moment in base._ticks(2, 20):
            time.sleep(max(0.0, moment - time.time()))
            self.stamp(time.time_ns())
            sent += 1
        stop.stop()
        worker.join(10)
        records = (base.DIR / "latency.bin").read_bytes()
        pairs = [base._pack2.__self__.unpack_from(records, at) for at in range(0, len(records), 16)]
        return {
            "enqueue": count / pushed,
            "drain": count / drained,
            "latency_ns": [start - begun for begun, start in pairs],
        }


if __name__ == "__main__":
    base.main("peer_protojobs")
