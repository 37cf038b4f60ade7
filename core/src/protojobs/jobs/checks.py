"""What is refused where a job is written: a function or a `handle` that no worker could call, a misspelt option."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from protojobs.errors import OptionInvalid, closest, shown
from protojobs.jobs.definition import JobClass
from protojobs.jobs.options import OPTIONS

__all__ = ["METHODS", "check_function", "check_handle"]

METHODS = {  # of each job, and the option for which one may be taken
    **{"on_queue": "queue", "retries": "max_retries", "retry_after": "retry_delay", "retry_in": "retry_delay"},
    **{"with_timeout": "timeout", "with_priority": "priority", "handle": "", "failed": "", "bind": ""},
}


def check_function(function: Callable[..., object]) -> None:
    """Refuse what cannot be a function job: a method, or a function whose arguments have no names."""
    if not inspect.isfunction(function):
        raise OptionInvalid(f"@job is for functions, not for {shown(function)}.", mend="Write a function around it.")
    _check_no_yield(f"@job {function.__qualname__}", function)
    parameters = inspect.signature(function).parameters
    if next(iter(parameters), None) in ("self", "cls"):
        raise OptionInvalid(
            f"@job {function.__qualname__} is a method, and a worker has no object to call it on.",
            mend="Write a function, or a class with `handle`.",
        )
    for parameter in parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise OptionInvalid(
                f"@job {function.__qualname__}: {parameter} cannot travel by name.", mend="Name each argument."
            )


def check_handle(cls: type[JobClass]) -> None:
    """Refuse a `handle` that no worker could call, and an attribute that looks like a misspelt option."""
    _check_methods(cls)
    own = {"name", "aliases", "cron", "executor", "exclusive", "soft_timeout", "retry_on", "discard_on"}
    known = {*OPTIONS, *own, "handle", "failed", "retry_in"}
    for name, value in cls.__dict__.items():
        if name in known or name.startswith("_") or callable(value):
            continue
        if meant := closest(name, {*known, *METHODS}, cutoff=0.8):
            mend = f'Did you mean "{METHODS.get(meant) or meant}"?'
            raise OptionInvalid(f"{cls.__qualname__}.{name} means nothing to a job.", mend=mend)
    handle = inspect.getattr_static(cls, "handle")
    _check_no_yield(f"{cls.__qualname__}.handle", cls.handle)
    is_bare = isinstance(handle, staticmethod)
    parameters = list(inspect.signature(cls.handle).parameters.values())[0 if is_bare else 1 :]
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)]
    if not positional:
        raise OptionInvalid(f"{cls.__qualname__}.handle takes no data.", mend="Write handle(self, data).")
    for extra in parameters[1:]:
        is_given = extra.default is not extra.empty or extra.kind in (extra.VAR_POSITIONAL, extra.VAR_KEYWORD)
        if not is_given and "JobContext" not in str(extra.annotation):
            raise OptionInvalid(
                f"{cls.__qualname__}.handle wants {extra.name}, and a worker has nothing to give for it.",
                mend="A job's data is one value: take it apart in handle(self, data), or write a function under @job."
                f" If it is the run that you want to know of, annotate it: {extra.name}: JobContext.",
            )


def _check_methods(cls: type[JobClass]) -> None:
    """Refuse `retries = 5`: it sets nothing, and takes the method away."""
    for name, option in METHODS.items():
        value: object = getattr(cls, name)
        if not callable(value):
            mend = f"Write {option} = {shown(value)}." if option else f"Write `def {name}`, or choose another name."
            raise OptionInvalid(f"{cls.__qualname__}.{name} is a method of every job, not an option.", mend=mend)


def _check_no_yield(what: str, code: Callable[..., object]) -> None:
    if inspect.isgeneratorfunction(code) or inspect.isasyncgenfunction(code):
        raise OptionInvalid(
            f"{what} has a `yield`, and nobody goes through what it makes.",
            mend="Do the work without one, or push a job for each part.",
        )
