"""The file: opened once per process, and used in steps, each of which is one transaction."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta

import lmdb

from protojobs.clock import SYSTEM_CLOCK, time_left
from protojobs.entropy import jittered
from protojobs.errors import ContractBroken, OptionInvalid, SchemaOutdated, StoreUnavailable
from protojobs_lmdb.rows import EPOCH, Step, micros

MAP_MB = 1 << 16  # the most that the file can grow to: it costs address space, not disk
PATIENCE_S, POLL_S = 10.0, 0.0005  # for one's turn to write: steps take milliseconds, so somebody must be frozen
LAYOUT = b"1"
BROKEN = (lmdb.CorruptedError, lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.BadValsizeError)

_files: dict[str, tuple[lmdb.Environment, int]] = {}  # LMDB forbids opening a file twice in one process
_lock = threading.Lock()  # held during every step, so that no fork and no close comes amidst one


def _close(path: str) -> None:
    env, turn = _files.pop(path)
    env.close()
    os.close(turn)


def _in_child() -> None:
    for path in list(_files):  # what the parent opened is the parent's
        _close(path)
    _lock.release()


os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_in_child)


class Handle:
    """A handle of `lmdb:///relative/path` or `lmdb:////absolute/path`; `time_offset` (seconds) moves its time."""

    def __init__(self, url: str, *, time_offset: float = 0.0, map_mb: int = MAP_MB) -> None:
        scheme, _, path = url.partition(":///")
        if scheme != "lmdb" or not path:
            raise OptionInvalid(f"{url!r} is no LMDB URL.", mend='Write it like "lmdb:///jobs.lmdb".')
        self._path, self._map_mb, self._offset = os.path.realpath(path), map_mb, timedelta(seconds=time_offset)

    def close(self) -> None:
        with _lock:
            if self._path in _files:  # this process's other handles open it again
                _close(self._path)

    @contextmanager
    def step(self, *, write: bool = False, is_set_up: bool = True) -> Generator[Step]:
        """One transaction: committed at the end; undone by an exception, or by the death of the process."""
        if not _lock.acquire(timeout=time_left(PATIENCE_S)):
            raise StoreUnavailable(f"{self._path}: another thread keeps it busy.")
        try:
            env, turn = self._opened()
            if write:
                _take(turn)
            try:
                with env.begin(write=write) as txn:
                    if is_set_up and txn.get(b"layout") != LAYOUT:
                        raise SchemaOutdated(f"{self._path} is not set up.", mend="Run: protojobs migrate")
                    clock = max(micros(SYSTEM_CLOCK.now()), int(txn.get(b"time", b"0")))  # never runs backwards
                    if write:
                        txn.put(b"time", b"%d" % clock)
                    yield Step(txn, EPOCH + timedelta(microseconds=clock) + self._offset)
            finally:
                fcntl.flock(turn, fcntl.LOCK_UN)
        except BROKEN as error:
            raise ContractBroken(f"{self._path}: {error}") from error
        except (lmdb.Error, OSError) as error:  # MapFullError is one of them: pruning makes room
            raise StoreUnavailable(f"{self._path}: {error}", mend="Is it full, or a process frozen?") from error
        finally:
            _lock.release()

    def _opened(self) -> tuple[lmdb.Environment, int]:
        if self._path not in _files:
            env = lmdb.open(self._path, subdir=False, map_size=self._map_mb << 20, max_readers=1024)
            env.reader_check()  # forgets processes that died while reading, which would keep old pages alive
            _files[self._path] = env, os.open(self._path, os.O_RDONLY)
        return _files[self._path]


def _take(turn: int) -> None:
    """Become the only writer. LMDB's own lock would see to that, but it waits without a bound."""
    ends_at = SYSTEM_CLOCK.monotonic() + time_left(PATIENCE_S)
    while True:
        try:
            return fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if SYSTEM_CLOCK.monotonic() > ends_at:
                raise
        SYSTEM_CLOCK.sleep(jittered(POLL_S))
