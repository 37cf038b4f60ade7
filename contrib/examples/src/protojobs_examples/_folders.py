"""Resolves paths in a job's data: inside the folder that the worker has as a setting, and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["PathRefused", "folder_from_environment", "inside"]


class PathRefused(ValueError):
    """A job's data names a path outside the folder that its worker may touch."""


def inside(folder: Path, path: str) -> Path:
    """`path` below `folder`, absolute and with every symlink followed. It need not exist.

    Raises PathRefused when it ends up outside, by `..`, by an absolute path or by a symlink.
    """
    root = folder.resolve()
    try:
        resolved = (root / path).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of symlinks, a NUL character
        raise PathRefused(f"{path!r} is no path: {error}") from error
    if not resolved.is_relative_to(root):
        raise PathRefused(f"{path!r} is outside {root}, the folder that this worker may touch")
    return resolved


def folder_from_environment(variable: str) -> Path | None:
    """The folder that an environment variable names; None when it is unset or empty."""
    value = os.environ.get(variable)
    return Path(value) if value else None
