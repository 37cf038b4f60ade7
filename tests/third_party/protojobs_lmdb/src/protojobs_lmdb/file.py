"""The file: opened once per process, and used in steps, each of which is one transaction."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import lmdb

from protojobs.clock import SYSTEM_CLOCK
from protojobs.entropy import jittered
from protojobs.errors import ContractBroken, OptionInvalid, SchemaOutdated, StoreUnavailable
from protojobs_lmdb.rows import Step, micros

__all__ = ["Handle"]

MAP_MB = 4096  # the file's most; address space, the disk gives only what is filled
PATIENCE_S = 10.0  # for one's turn at the file; steps take milliseconds, so somebody is frozen
LAYOUT, LAYOUT_KEY, TIME_KEY = b"1", b"layout", b"time"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BROKEN = (lmdb.CorruptedError, lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.BadValsizeError)


class _File:
    """An open file, and the handles that use it. LMDB forbids opening one twice in a process."""

    def __init__(self, path: str, map_mb: int) -> None:
        self.env = lmdb.open(path, subdir=False, map_size=map_mb << 20, max_readers=1024, max_spare_txns=0)
        self.env.reader_check()  # forget processes that died while reading: they would keep old pages alive
        self.turn = os.open(path, os.O_RDONLY)  # for flock: whose turn it is to write
        self.handles: set[Handle] = set()

    def close(self) -> None:
        self.env.close()
        os.close(self.turn)


_files: dict[str, _File] = {}
_lock = threading.Lock()  # held in every step: a fork or a close never finds a transaction open


def _in_child() -> None:
    while _files:  # what the parent opened is the parent's; the child opens anew when it needs to
        _files.popitem()[1].close()
    _lock.release()


os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_in_child)


class Handle:
    """One handle on `lmdb:///relative/path` or `lmdb:////absolute/path`. `time_offset` (seconds) moves its time."""

    def __init__(self, url: str, *, time_offset: float = 0.0) -> None:
        parts = urlsplit(url)
        size = parse_qs(parts.query).get("map_mb", [str(MAP_MB)])[-1]
        if parts.scheme != "lmdb" or parts.netloc or not parts.path.strip("/") or not size.isdecimal():
            raise OptionInvalid(f"{url!r} is no LMDB URL.", mend='Write it like "lmdb:///jobs.lmdb?map_mb=4096".')
        self._path, self._map_mb = os.path.realpath(parts.path[1:]), int(size)
        self._offset = timedelta(seconds=time_offset)

    def setup(self) -> None:
        """See Driver.setup."""
        with self._step(write=True, creates=True) as step:
            step.txn.put(LAYOUT_KEY, LAYOUT)

    def teardown(self) -> None:
        """Empty the file. It stays, since others may have it open."""
        if os.path.exists(self._path):
            with self._step(write=True, creates=True) as step:
                for key in [key for key, _ in step.txn.cursor()]:
                    step.txn.delete(key)

    def close(self) -> None:
        """See Driver.close. The last handle of a process closes the file."""
        with _lock:
            file = _files.get(self._path)
            if file is not None:
                file.handles.discard(self)
                if not file.handles:
                    _files.pop(self._path).close()

    def now(self) -> datetime:
        """Store time: this machine's clock, never before what a write has seen, plus `time_offset`."""
        with self._step() as step:
            return step.now

    @contextmanager
    def _step(self, *, write: bool = False, creates: bool = False) -> Iterator[Step]:
        """One transaction: it is committed at the end, or undone by an exception, or by the process's death."""
        ends_at = SYSTEM_CLOCK.monotonic() + PATIENCE_S
        if not _lock.acquire(timeout=PATIENCE_S):
            raise _late(self._path)
        try:
            file = self._opened(creates=creates)
            if write:
                _take_turn(file, ends_at, self._path)
            try:
                with file.env.begin(write=write) as txn:
                    if not creates and txn.get(LAYOUT_KEY) != LAYOUT:
                        raise SchemaOutdated(f"{self._path} is not set up.", mend="Run: protojobs migrate")
                    clock = max(micros(SYSTEM_CLOCK.now()), int(txn.get(TIME_KEY, b"0")))
                    if write:
                        txn.put(TIME_KEY, b"%d" % clock)
                    yield Step(txn, EPOCH + timedelta(microseconds=clock) + self._offset)
            finally:
                fcntl.flock(file.turn, fcntl.LOCK_UN)
        except BROKEN as error:
            raise ContractBroken(f"{self._path}: {error}") from error
        except lmdb.MapFullError as error:
            mend = "Prune or clear, or give its URL a larger map_mb in every process."
            raise StoreUnavailable(f"{self._path} is full.", mend=mend) from error
        except (lmdb.Error, OSError) as error:
            raise StoreUnavailable(f"{self._path}: {error}") from error
        finally:
            _lock.release()

    def _opened(self, *, creates: bool) -> _File:
        file = _files.get(self._path)
        if file is None:
            if not creates and not os.path.exists(self._path):
                raise SchemaOutdated(f"There is no {self._path}.", mend="Run: protojobs migrate")
            file = _files[self._path] = _File(self._path, self._map_mb)
        file.handles.add(self)
        return file


def _take_turn(file: _File, ends_at: float, path: str) -> None:
    """Wait to be the only process that writes. LMDB's own lock would do, but for a bound on the wait."""
    while True:
        try:
            return fcntl.flock(file.turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if SYSTEM_CLOCK.monotonic() > ends_at:
                raise _late(path) from None
            SYSTEM_CLOCK.sleep(jittered(0.0005, 1.0))


def _late(path: str) -> StoreUnavailable:
    return StoreUnavailable(f"{path}: another step has kept it for {PATIENCE_S:g} s.", mend="Is a process frozen?")
