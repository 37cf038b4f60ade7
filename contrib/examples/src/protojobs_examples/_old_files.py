"""Deletes old files below a folder, and never follows a symlink."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

__all__ = ["FilesDone", "delete_old_files"]


class FilesDone(msgspec.Struct, frozen=True):
    """How many files, how many bytes, and whether there may be more."""

    files: int
    bytes: int
    has_more: bool


def delete_old_files(  # noqa: PLR0913  (what, how old, how many, and how to stop)
    folder: Path, pattern: str, *, recursive: bool, before: float, limit: int, dry_run: bool, stop: Callable[[], bool]
) -> FilesDone:
    """Delete up to `limit` regular files whose name fits `pattern` and that were last changed before `before` (epoch).

    Every step goes through the open folder, not through its path: a folder that somebody replaces by a symlink while
    this runs leads nowhere else. Symlinks themselves, and folders, are left alone. A file that is gone already is
    nobody's error. POSIX only.
    """
    files = size = 0
    for parent, name in _regular_files(folder, recursive):
        if not fnmatchcase(name, pattern):
            continue
        with suppress(FileNotFoundError):
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode) or status.st_mtime >= before:
                continue
            if files >= limit or stop():
                return FilesDone(files, size, has_more=True)
            if not dry_run:
                os.unlink(name, dir_fd=parent)
            files, size = files + 1, size + status.st_size
    return FilesDone(files, size, has_more=False)


def _regular_files(folder: Path, recursive: bool) -> Iterator[tuple[int, str]]:
    """The open parent and the name of all that is no folder, below `folder`."""
    for _, folders, names, parent in os.fwalk(folder, follow_symlinks=False, onerror=_complain):
        if not recursive:
            folders.clear()  # fwalk looks at this list to know where to go on
        for name in names:
            yield parent, name


def _complain(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # a folder deleted under our feet is fine; one we may not read is not
        raise error
