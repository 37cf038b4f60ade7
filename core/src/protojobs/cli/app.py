"""Importing the application, so that its jobs are known: `module`, or `module:object` for a JobQueue of its own."""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from pathlib import Path

from protojobs.errors import ConfigurationError, did_you_mean
from protojobs.queue import JobQueue

__all__ = ["load_app", "look_here"]


def load_app(name: str) -> JobQueue | None:
    """Import the module; with `:object` answer that JobQueue.

    Raises ConfigurationError that says where the trouble is.
    """
    module_name, colon, path = name.partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise _no_module_name(module_name)
    look_here()
    found: object = _imported(module_name)
    if not colon:
        return None
    for part in path.split("."):
        if not hasattr(found, part):
            names = [known for known in dir(found) if not known.startswith("_")]
            raise ConfigurationError(f'{module_name} has no "{part}".', mend=did_you_mean(part, names))
        found = getattr(found, part)
    if not isinstance(found, JobQueue):
        raise ConfigurationError(
            f"{name} is a {type(found).__name__}, not a JobQueue.",
            mend=f"Name a JobQueue, or the module alone: --app {module_name}",
        )
    return found


def look_here() -> None:
    """Let imports find what is in the current folder, first, as `python -m` does."""
    here = os.getcwd()
    if sys.path[:1] not in ([here], [""]):
        sys.path.insert(0, here)


def _imported(name: str) -> object:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name + ".").startswith(error.name + "."):
            raise _failed(name, error) from error
        raise ConfigurationError(
            f'There is no module "{name}". It was looked for in {os.getcwd()} and where Python looks.',
            mend=did_you_mean(name, _modules_here()) or "Go to the folder that holds it, or install its package.",
        ) from error
    except (Exception, SystemExit) as error:  # the application's own code, and whatever it raises
        raise _failed(name, error) from error


def _failed(name: str, error: BaseException) -> ConfigurationError:
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else name
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{error.filename}, line {error.lineno}"
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return ConfigurationError(
        f'Importing "{name}" failed. {said} ({place})', mend="Mend the module; --debug shows the whole traceback."
    )


def _no_module_name(text: str) -> ConfigurationError:
    dotted = text.removesuffix(".py").strip("./").replace("/", ".")
    is_file = text.endswith(".py") and all(part.isidentifier() for part in dotted.split("."))
    return ConfigurationError(
        f'"{text}" is no module name.', mend=f"--app {dotted}" if is_file else "Write it like --app shop.jobs"
    )


def _modules_here() -> list[str]:
    return [path.stem for path in Path.cwd().iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
