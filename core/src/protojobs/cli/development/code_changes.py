"""Watches folders for changed code. Needs watchfiles, of the extra `dev`."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from protojobs.errors import ConfigurationError

__all__ = ["CodeChanges"]

DEBOUNCE_MS = 300  # an editor writes a file in several steps, and git many files
JOIN_S = 2.0
SHOWN = 3


class CodeChanges:
    """Watches folders from a thread. Raises ConfigurationError when it cannot."""

    def __init__(self, folders: Sequence[Path]) -> None:
        try:
            import watchfiles  # an optional dependency
        except ImportError as error:
            raise ConfigurationError(
                "Reloading needs watchfiles, which is not installed.",
                mend='pip install "protojobs[dev]", or say --no-reload.',
            ) from error
        for folder in folders:
            if not folder.is_dir() or not os.access(folder, os.R_OK | os.X_OK):
                what = (
                    f"The folder {folder} cannot be read"
                    if folder.is_dir()
                    else f"There is no folder {folder} to watch"
                )
                raise ConfigurationError(f"{what}.", mend="Give another --watch.")
        self._lock = threading.Lock()
        self._paths: set[str] = set()
        self._is_closed = threading.Event()
        self._lost = ""
        self._folders = folders
        self._watch = partial(
            watchfiles.watch,
            watch_filter=watchfiles.PythonFilter(extra_extensions=(".toml",)),
            debounce=DEBOUNCE_MS,
            stop_event=self._is_closed,
            rust_timeout=500,
            raise_interrupt=False,
        )
        self._thread = threading.Thread(target=self._look, name="protojobs-changes", daemon=True)
        self._thread.start()

    def take(self) -> str:
        """What has changed since the last call, for people; empty when nothing has."""
        with self._lock:
            paths, self._paths = sorted(self._paths), set()
        if not paths:
            return ""
        here = Path.cwd()
        shown = [str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path for path in paths]
        return ", ".join(shown[:SHOWN]) + (f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else "")

    @property
    def lost(self) -> str:
        """Why nothing is watched any more; empty while it is."""
        return self._lost

    def close(self) -> None:
        """Watch no more."""
        self._is_closed.set()
        self._thread.join(JOIN_S)

    def _look(self) -> None:
        why = "the watch has ended"
        try:
            try:
                self._collect(self._folders)
            except PermissionError:
                # The watch of a folder ends at what lies in it and cannot be read, wherever that stands in the order
                # of the file system. So what stands beside that is watched by itself.
                self._collect([*self._folders, *_beside_unreadable(self._folders)], ignore_permission_denied=True)
        except BaseException as error:  # noqa: BLE001  (whatever ends this thread, dev must not wait for it)
            why = str(error) or type(error).__name__
        if not self._is_closed.is_set():
            self._lost = why

    def _collect(self, folders: Sequence[Path], *, ignore_permission_denied: bool = False) -> None:
        for changes in self._watch(*folders, ignore_permission_denied=ignore_permission_denied):
            with self._lock:
                self._paths.update(path for _, path in changes)


def _beside_unreadable(folders: Sequence[Path]) -> list[Path]:
    """Of each folder above one that cannot be read, up to those that are watched, the folders in it."""
    folders_beside: dict[Path, None] = {}
    for folder in folders:
        closed = _unreadable(folder)
        above = {parent for one in closed for parent in one.parents if parent.is_relative_to(folder)}
        inside = (one for parent in sorted(above) for one in parent.iterdir() if one.is_dir())
        folders_beside |= dict.fromkeys(one for one in inside if one not in closed)
    return list(folders_beside)


def _unreadable(folder: Path) -> list[Path]:
    unreadable: list[Path] = []

    def note(error: OSError) -> None:
        unreadable.append(Path(str(error.filename)))

    for _ in os.walk(folder, onerror=note):
        pass
    return unreadable
