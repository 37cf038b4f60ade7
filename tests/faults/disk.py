"""A disk so small that it can be filled: a file system in memory, which takes root (or a user namespace) to mount."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import servers

__all__ = ["SmallDisk"]

MIB = 96


class SmallDisk:
    """Mounted for the length of a `with`. Raises servers.Unavailable where it may not be."""

    def __init__(self, path: Path, mib: int = MIB) -> None:
        self.path = path
        self._mib = mib
        self._filler = path / "filler"

    def __enter__(self) -> Self:
        """Mount it."""
        self.path.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={self._mib}m,mode=0777", "tmpfs", str(self.path)]
        try:
            ran = subprocess.run(command, capture_output=True, text=True, timeout=10)
        except FileNotFoundError as error:
            raise servers.Unavailable("there is no `mount` here") from error
        if ran.returncode:
            raise servers.Unavailable(
                f"a small disk cannot be mounted ({ran.stderr.strip()}); as a plain user, on Linux: "
                "unshare --user --map-root-user --mount python3 dev.py faults ..."
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Unmount it, even with files open."""
        subprocess.run(["umount", "--lazy", str(self.path)], capture_output=True, timeout=10)

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Not a byte is free for the length of the block."""
        with open(self._filler, "wb", buffering=0) as file:
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(65536))
        try:
            yield
        finally:
            self._filler.unlink()
