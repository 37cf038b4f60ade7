"""`assert_pushed` and `assert_not_pushed`: what was pushed, and if not, what was pushed instead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import cast

import msgspec

from protojobs.jobs import codec
from protojobs.jobs.job_class import BoundJob, as_bound
from protojobs.names import check_seconds, parse_when
from protojobs.testing.differences import difference, indented
from protojobs.testing.pushes import PushedJob
from protojobs.testing.queueing import TestQueue

__all__ = ["assert_not_pushed", "assert_pushed"]

_SHOWN_MAX = 5  # pushes whose differences a message shows


class _Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a push must be; None: anything."""

    job_name: str
    data: object = None
    has_data: bool = False
    queue: str | None = None
    delay: float | None = None
    due_at: datetime | None = None

    def differences(self, push: PushedJob) -> list[str]:
        """Lines that say where the push is otherwise; empty when it fits."""
        lines: list[str] = []
        if self.has_data and push.data != self.data:
            lines += ["data:", *(f"  {line}" for line in difference(self.data, push.data))]
        if self.queue is not None and push.queue != self.queue:
            lines += [f'- queue "{self.queue}"', f'+ queue "{push.queue}"']
        if self.delay is not None and abs(push.delay - self.delay) > 1e-6:  # the store keeps microseconds
            lines += [f"- delay {self.delay:g} s", f"+ delay {push.delay:g} s"]
        if self.due_at is not None and push.due_at != self.due_at:
            lines += [f"- due at {self.due_at}", f"+ due at {push.due_at}"]
        return lines

    def __str__(self) -> str:
        words = [f'"{self.job_name}"']
        words += [f"data {self.data!r}"] if self.has_data else []
        words += [f'queue "{self.queue}"'] if self.queue is not None else []
        words += [f"delay {self.delay:g} s"] if self.delay is not None else []
        words += [f"due at {self.due_at}"] if self.due_at is not None else []
        return ", ".join(words)


def assert_pushed(
    queue: TestQueue,
    job: object,
    data: object = None,
    *,
    count: int | None = None,
    queue_name: str | None = None,
    delay: float | timedelta | datetime | str | None = None,
) -> list[PushedJob]:
    """Pass if `job` was pushed to `queue` like this, and return the pushes that fit.

    `job` is whatever `push` takes. What is None may be anything; `data` must be equal as a worker would find it.
    `delay` is in seconds, a timedelta, or the moment at which the job is due. `count`: exactly so many, else at least
    one. Raises AssertionError that shows what was pushed instead.
    """
    __tracebackhide__ = True
    wanted = _wanted(queue, job, data, queue_name, delay)
    of_job = [push for push in queue.pushed() if push.job_name == wanted.job_name]
    fitting = [push for push in of_job if not wanted.differences(push)]
    if len(fitting) == count or (count is None and fitting):
        return fitting
    what = "was not pushed" if not fitting else f"was pushed {_times(len(fitting))}"
    lines = [f"{wanted} {what}{'' if count is None else f', not {_times(count)}'}."]
    raise AssertionError("\n".join([*lines, *_instead(queue, wanted, of_job)]))


def assert_not_pushed(
    queue: TestQueue,
    job: object = None,
    data: object = None,
    *,
    queue_name: str | None = None,
    delay: float | timedelta | datetime | str | None = None,
) -> None:
    """Pass if nothing like this was pushed; without a `job`, if nothing at all was. See `assert_pushed`."""
    __tracebackhide__ = True
    if job is None:
        found, what = queue.pushed(), "Nothing should have been pushed"
    else:
        wanted = _wanted(queue, job, data, queue_name, delay)
        found = [push for push in queue.pushed() if push.job_name == wanted.job_name and not wanted.differences(push)]
        what = f"{wanted} should not have been pushed"
    if found:
        shown = [_line(push) for push in found[:_SHOWN_MAX]] + _and_more(found)
        raise AssertionError(f"{what}, and was {_times(len(found))}:\n{indented(shown, 2)}")


def _wanted(
    queue: TestQueue, job: object, data: object, name: str | None, delay: float | timedelta | datetime | str | None
) -> _Wanted:
    bound = as_bound(job, data, queue.registry)
    definition = bound.definition
    has_data = data is not None or isinstance(job, BoundJob)
    text = "null"
    if has_data:
        text = codec.encode(bound.data, definition.data_type, what=f'the data wanted of "{definition.name}"')
    is_moment = isinstance(delay, datetime | str)
    return _Wanted(
        job_name=definition.name,
        data=cast("object", msgspec.json.decode(text)),
        has_data=has_data,
        queue=name,
        delay=None if delay is None or is_moment else check_seconds("delay", delay),
        due_at=parse_when("delay", delay, queue.settings.timezone) if is_moment else None,
    )


def _instead(queue: TestQueue, wanted: _Wanted, of_job: Sequence[PushedJob]) -> list[str]:
    """What was pushed: the same job with its differences (-: wanted, +: pushed), and how many others."""
    lines: list[str] = []
    for push in of_job[:_SHOWN_MAX]:
        lines.append(f"  {_line(push)}")
        if differences := wanted.differences(push):
            lines.append(indented(differences))
    lines += [f"  {line}" for line in _and_more(of_job)]
    others = Counter(push.job_name for push in queue.pushed() if push.job_name != wanted.job_name)
    if others:
        lines.append(
            f"Other jobs pushed: {', '.join(f'{name} ({number})' for name, number in others.most_common(20))}."
        )
    elif not of_job:
        lines.append("Nothing was pushed at all.")
    return lines


def _line(push: PushedJob) -> str:
    later = f", due in {push.delay:g} s" if push.delay else ""
    text = repr(push.data)
    return f'"{push.job_name}" in queue "{push.queue}"{later}: {text if len(text) <= 200 else text[:200] + "..."}'


def _and_more(found: Sequence[object]) -> list[str]:
    return [f"and {len(found) - _SHOWN_MAX} more"] if len(found) > _SHOWN_MAX else []


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
