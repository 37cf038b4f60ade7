"""Imports the application that --app names, `module` or `module:object`, so that its jobs are registered."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from types import FrameType

from protojobs.errors import ConfigurationError, did_you_mean
from protojobs.queue.queue import JobQueue

__all__ = ["load_app", "look_here"]

_INSTALLED = f"{os.sep}site-packages{os.sep}"
_STDLIB = os.path.join(os.path.dirname(os.__file__), "")


def load_app(name: str, source: Path | None = None) -> JobQueue | None:
    """Import the module; with `:object` return that JobQueue. `source`: the settings file that names it; then it is
    looked for beside that file first.

    Raises ConfigurationError that says where the trouble is.
    """
    module_name, colon, path = name.partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise _no_module_name(module_name)
    look_here(source)
    value: object = _imported(module_name, source)
    if not colon:
        return None
    for part in path.split("."):
        if not hasattr(value, part):
            names = [attribute for attribute in dir(value) if not attribute.startswith("_")]
            raise ConfigurationError(f'{module_name} has no "{part}".', mend=did_you_mean(part, names))
        value = getattr(value, part)
    if not isinstance(value, JobQueue):
        raise ConfigurationError(
            f"{name} is a {type(value).__name__}, not a JobQueue.",
            mend=f"Name a JobQueue, or the module alone: --app {module_name}",
        )
    return value


def look_here(source: Path | None = None) -> None:
    """Let imports find what is in the current folder, first, as `python -m` does; before it what is beside `source`."""
    folders = _folders(source)
    if sys.path[: len(folders)] not in (folders, [""]):
        sys.path[:0] = folders


def _folders(source: Path | None) -> list[str]:
    here = os.getcwd()
    return [here] if source is None or str(source.parent) == here else [str(source.parent), here]


def _imported(name: str, source: Path | None) -> object:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name + ".").startswith(error.name + "."):
            raise _failed(name, error) from error
        folders = _folders(source)
        named = f", since {source} names it" if len(folders) > 1 else ""
        raise ConfigurationError(
            f'There is no module "{name}". It was looked for in {", in ".join(folders)} and where Python looks{named}.',
            mend=did_you_mean(name, _modules_in(folders)) or "Go to the folder that holds it, or install its package.",
        ) from error
    except (Exception, SystemExit) as error:  # the application's own code, and whatever it raises
        raise _failed(name, error) from error


def _failed(name: str, error: BaseException) -> ConfigurationError:
    where = _where(error) or name
    if isinstance(error, SyntaxError) and error.filename:
        where = f"{error.filename}, line {error.lineno}"
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return ConfigurationError(
        f'Importing "{name}" failed. {what} ({where})', mend="Mend the module; --debug shows the whole traceback."
    )


def _where(error: BaseException) -> str:
    """The innermost line of the application in the traceback: libraries below it only detected the mistake."""
    frames = list(traceback.walk_tb(error.__traceback__))
    theirs = [(frame, line) for frame, line in frames if not _is_ours_or_pythons(frame)] or frames
    # An application may be installed beside its libraries; if it is not, what is installed is a library.
    own = [(frame, line) for frame, line in theirs if _INSTALLED not in frame.f_code.co_filename] or theirs
    return f"{own[-1][0].f_code.co_filename}, line {own[-1][1]}" if own else ""


def _is_ours_or_pythons(frame: FrameType) -> bool:
    is_ours = re.match(r"protojobs(_\w+)?(\.|$)", str(frame.f_globals.get("__name__"))) is not None
    file = frame.f_code.co_filename
    return is_ours or file.startswith("<frozen") or (file.startswith(_STDLIB) and _INSTALLED not in file)


def _no_module_name(text: str) -> ConfigurationError:
    dotted = text.removesuffix(".py").strip("./").replace("/", ".")
    is_file = text.endswith(".py") and all(part.isidentifier() for part in dotted.split("."))
    return ConfigurationError(
        f'"{text}" is no module name.', mend=f"--app {dotted}" if is_file else "Write it like --app shop.jobs"
    )


def _modules_in(folders: Iterable[str]) -> list[str]:
    paths = (path for folder in folders for path in Path(folder).iterdir())
    return [path.stem for path in paths if path.suffix == ".py" or (path / "__init__.py").is_file()]
