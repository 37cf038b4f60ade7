"""Seeing that the code has changed. Needs watchfiles, of the extra `dev`."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from protojobs.errors import ConfigurationError

__all__ = ["Changes"]

DEBOUNCE_MS = 300  # an editor writes a file in several steps, and git many files
JOIN_S = 2.0
SHOWN = 3


class Changes:
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
            if not folder.is_dir():
                raise ConfigurationError(f"There is no folder {folder} to watch.", mend="Give another --watch.")
        self._lock = threading.Lock()
        self._paths: set[str] = set()
        self._is_closed = threading.Event()
        self._watch = watchfiles.watch(
            *folders,
            watch_filter=watchfiles.PythonFilter(extra_extensions=(".toml",)),
            debounce=DEBOUNCE_MS,
            stop_event=self._is_closed,
            rust_timeout=500,
            raise_interrupt=False,
        )
        self._thread = threading.Thread(target=self._look, name="protojobs-changes", daemon=True)
        self._thread.start()

    def taken(self) -> str:
        """What has changed since the last call, for people; empty when nothing has."""
        with self._lock:
            paths, self._paths = sorted(self._paths), set()
        if not paths:
            return ""
        here = Path.cwd()
        shown = [str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path for path in paths]
        return ", ".join(shown[:SHOWN]) + (f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else "")

    def close(self) -> None:
        """Watch no more."""
        self._is_closed.set()
        self._thread.join(JOIN_S)

    def _look(self) -> None:
        for changes in self._watch:
            with self._lock:
                self._paths.update(path for _, path in changes)
