"""The options of a job: what may be set on its class, by `@job`, or on a copy for one push."""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

import msgspec

from protojobs.errors import OptionInvalid, did_you_mean, one_line, shown
from protojobs.jobs.backoff import Backoff, as_backoff
from protojobs.names import check_count, check_name, check_seconds

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "OPTIONS",
    "Fluent",
    "JobOptions",
    "Where",
    "changed_options",
    "check_exclusive",
    "check_executor",
    "check_soft_timeout",
    "check_store_result",
    "checked_options",
    "exception_types",
    "options_of",
]

Where: TypeAlias = Literal["thread", "process"]

PRIORITY_MAX = 100
RETRIES_MAX = 10_000
OPTIONS = ("queue", "max_retries", "retry_delay", "backoff", "timeout", "priority")
_AT_DEFINITION = ("name", "aliases", "retry_on", "discard_on", "executor", "exclusive", "soft_timeout", "cron")
_BACKOFF = OPTIONS.index("backoff")
_values_of = attrgetter(*OPTIONS)


class JobOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What may be set per job. None takes the queue's configured default."""

    queue: str | None = None
    max_retries: int | None = None
    retry_delay: float | None = None
    backoff: Backoff | None = None
    timeout: float | None = None
    priority: int = 0


def checked_options(**given: object) -> JobOptions:
    """JobOptions from what a user wrote. Raises OptionInvalid, and for a misspelt option says which was meant."""
    for name in given:
        if name not in OPTIONS:
            known = (*OPTIONS, *_AT_DEFINITION)
            mend = did_you_mean(name, known) or f"There are {', '.join(known)}."
            raise OptionInvalid(f'There is no job option "{one_line(name)}".', mend=mend)
    return _options(tuple(given.get(name, 0 if name == "priority" else None) for name in OPTIONS))


def _options(values: tuple[object, ...]) -> JobOptions:
    """From the values of OPTIONS, in this order."""
    # Whoever pushes a class a million times has its attributes read as often, since they may have changed. Not kept is
    # what a list of delays gave: one equal to it may hold what is refused, such as True for 1.
    if values[_BACKOFF] is None or isinstance(values[_BACKOFF], Backoff):
        try:
            return _checked_before(*values)
        except TypeError:  # one of them cannot be a key, and will be refused
            pass
    return _checked(*values)


def _checked(
    queue: object, retries: object, delay: object, backoff: object, timeout: object, priority: object
) -> JobOptions:
    return JobOptions(
        queue=None if queue is None else check_name("queue", queue),
        max_retries=None if retries is None else check_count("max_retries", retries, maximum=RETRIES_MAX),
        retry_delay=None if delay is None else check_seconds("retry_delay", delay),
        backoff=as_backoff(cast("Backoff | None", backoff)),
        timeout=None if timeout is None else check_seconds("timeout", timeout),
        priority=check_count("priority", priority, minimum=-PRIORITY_MAX, maximum=PRIORITY_MAX),
    )


_checked_before = lru_cache(maxsize=256, typed=True)(_checked)  # typed: a bool is refused, though True == 1


def exception_types(what: str, value: object) -> tuple[type[BaseException], ...]:
    """What a user wrote for `retry_on` or `discard_on`: one exception class, or several."""
    given = cast(
        "tuple[object, ...]", tuple(cast("list[object]", value)) if isinstance(value, list | tuple) else (value,)
    )
    for kind in given:
        text = shown(kind)
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise OptionInvalid(f"{what} holds {text}, no exception class.", mend="Write (ValueError, ...).")
    return cast("tuple[type[BaseException], ...]", given)


def check_executor(value: object) -> Where | None:
    """What a user wrote for `executor`; None leaves it to the worker's settings. It does not travel with the job."""
    if value is None:
        return None
    if value == "thread":
        return "thread"
    if value == "process":
        return "process"
    raise OptionInvalid(f"executor is {shown(value)}.", mend='It is "thread" or "process".')


def check_exclusive(value: object) -> bool:
    """What a user wrote for `exclusive`. It does not travel with the job."""
    if isinstance(value, bool):
        return value
    raise OptionInvalid(f"exclusive is {shown(value)}.", mend="It is True or False.")


def check_store_result(value: object) -> bool:
    """What a user wrote for `store_result`. It does not travel with the job."""
    if isinstance(value, bool):
        return value
    raise OptionInvalid(f"store_result is {shown(value)}.", mend="It is True or False.")


def check_soft_timeout(value: object, timeout: float | None) -> float:
    """What a user wrote for `soft_timeout`, in seconds; 0 = none. It does not travel with the job."""
    soft_s = 0.0 if value is None else check_seconds("soft_timeout", value)
    if soft_s and timeout and soft_s >= timeout:
        raise OptionInvalid(
            f"soft_timeout is {soft_s:g} s, and timeout, which ends the run, {timeout:g} s.",
            mend="Leave some seconds between the two, for the job to clean up.",
        )
    return soft_s


class Fluent:
    """The documented run-time settings. Each returns a copy, so a job that others share never changes."""

    def on_queue(self, queue: str) -> Self:
        """The same job, for another queue."""
        return self._with(queue=queue)

    def retries(self, max_retries: int) -> Self:
        """The same job with at most `max_retries` runs after the first."""
        return self._with(max_retries=max_retries)

    def retry_after(self, seconds: float | timedelta) -> Self:
        """The same job with this first delay before a retry."""
        return self._with(retry_delay=seconds)

    def with_timeout(self, seconds: float | timedelta) -> Self:
        """The same job with another limit for one run; 0 = none."""
        return self._with(timeout=seconds)

    def with_priority(self, priority: int) -> Self:
        """The same job with a priority from -100 to 100 within its queue, higher first."""
        return self._with(priority=priority)

    def _with(self, **option: object) -> Self:
        raise NotImplementedError


def options_of(source: object) -> JobOptions:
    """The options that stand as attributes on a job, class or instance."""
    return _options(_values_of(source))


def changed_options(options: JobOptions, **change: object) -> JobOptions:
    """A copy with some options changed."""
    return checked_options(**dict(zip(OPTIONS, _values_of(options), strict=True)) | change)
