"""A process at the store, for one measurement: it pushes, it looks what is left; as a limit's worker it works.

python side.py SUBJECT KIND URL          a command in JSON on each line of stdin, an answer in JSON for each
python side.py SUBJECT KIND URL SECONDS  work until killed, or for so long
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections.abc import Iterator

from subjects import BULK, Subject, open_subject

SLICE = 5 * BULK  # between two looks at the watch
LOOK_S = 0.002  # between two looks at what is left
RATE = 20  # jobs a second, when their latency is measured


class Side:
    """The commands; each answers what it did."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._over = threading.Event()
        self._worker: threading.Thread | None = None

    def setup(self) -> dict[str, float]:
        """Make what an empty store needs."""
        self._subject.setup()
        return {}

    def push(self, count: int, seconds: float) -> dict[str, float]:
        """Up to `count` jobs one by one, for `seconds` at most."""
        done, began, push = 0, time.perf_counter(), self._subject.push
        while done < count:
            push()
            done += 1
            if not done & 15 and time.perf_counter() - began > seconds:
                break
        return {"jobs": done, "seconds": time.perf_counter() - began}

    def bulk(self, count: int, seconds: float) -> dict[str, float]:
        """Up to `count` jobs in bulk; `seconds` is looked at now and then."""
        done, began = 0, time.perf_counter()
        while done < count and (not done or time.perf_counter() - began < seconds):
            size = min(SLICE, count - done)
            self._subject.push_many(size)
            done += size
        return {"jobs": done, "seconds": time.perf_counter() - began}

    def stamps(self, count: int) -> dict[str, float]:
        """Jobs that carry the moment of their push, each at a random moment of its own 50 ms: in step with no poll."""
        chance = random.Random(42)
        began = time.time()
        for at in range(count):
            time.sleep(max(0.0, began + (at + chance.random()) / RATE - time.time()))
            self._subject.push_stamp(time.time_ns())
        return {"jobs": count}

    def left(self) -> dict[str, float]:
        """Unfinished jobs in the store."""
        return {"left": self._subject.left()}

    def settle(self, seconds: float) -> dict[str, float]:
        """Look until nothing is left, for `seconds` at most, and say when that was."""
        end = time.monotonic() + seconds
        while (left := self._subject.left()) and time.monotonic() < end:
            time.sleep(LOOK_S)
        return {"left": left, "at_ns": time.time_ns()}

    def work(self) -> dict[str, float]:
        """Work in a thread of this process: the only place for a store in memory."""
        self._worker = threading.Thread(target=self._subject.work, args=(self._over,), daemon=True)
        self._worker.start()
        return {}

    def close(self) -> None:
        """Stop the worker, if there is one."""
        self._over.set()
        if self._worker:
            self._worker.join(10)


def answers(side: Side) -> Iterator[dict[str, float]]:
    """Do what each line of stdin asks for."""
    for line in sys.stdin:
        command, *words = json.loads(line)
        yield getattr(side, command)(*words)


def main(name: str, kind: str, url: str, *life_s: str) -> None:
    subject = open_subject(name, kind, url)
    if life_s:
        over = threading.Event()
        alarm = threading.Timer(float(life_s[0]), over.set)
        alarm.daemon = True  # else it would outlive a worker that fails
        alarm.start()
        subject.work(over)
        return
    side = Side(subject)
    for answer in answers(side):
        print(json.dumps(answer), flush=True)
    side.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
