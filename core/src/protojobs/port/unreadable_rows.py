"""Stored rows that no driver wrote, such as a hand-edited one: what of them can be read, and why the rest cannot.

For the writer of a driver. One such row must hold up nothing else, neither a queue nor a list. Verbs that look build
their records with `read`, which never fails; a claim lends what can be read, and settles a job that cannot be as failed
in the same call, with `set_aside`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import NamedTuple, TypeVar

from msgspec import Struct, convert

from protojobs.clock import EPOCH
from protojobs.names import DELAY_MAX_S
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.records import ClaimedJob, FailedJob, Fence, JobRecord, Settlement

__all__ = ["UNREADABLE", "is_unreadable", "read", "set_aside", "why_unreadable"]

UNREADABLE = "unreadable"
"""The fingerprint of jobs that were set aside, by which they are found."""

Record = TypeVar("Record", bound=Struct)

_SENTENCE = "The stored row cannot be read: "
_COUNT_MAX = 2**31 - 1
_SHOWN_MAX = 60  # characters of a value in a message
_NO_TIME = EPOCH  # stands for a time that cannot be read


def read(kind: type[Record], row: Mapping[str, object]) -> Record:
    """A record from a stored row's values, by the names of its fields. Never fails.

    Bytes that are UTF-8 are text, but for names, which stores compare. What no driver writes has a stand-in (0, the
    year 1970, the state `unreadable`), and the `reason` of a job, or the `exception` of a row of failed_jobs, says so.
    """
    values: dict[str, object] = {}
    problems: list[str] = []
    for name, value in row.items():
        values[name], problem = _read(name, value)
        problems += [problem] if problem else []
    if problems and issubclass(kind, JobRecord | FailedJob):
        place = "reason" if issubclass(kind, JobRecord) else "exception"
        said = str(values.get(place) or "")
        if not said.startswith(_SENTENCE):  # as that of a job which was set aside for it
            values[place] = f"{_sentence(problems)}\n{said}".rstrip()
    return convert(values, kind)


def why_unreadable(row: Mapping[str, object]) -> str:
    """What of a stored row no driver writes, for people; empty where all of it can be read."""
    problems = [problem for name, value in row.items() if (problem := _read(name, value)[1])]
    return _sentence(problems) if problems else ""


def is_unreadable(job: JobRecord) -> bool:
    """Whether `read` has found anything in the job's row that no driver writes."""
    return (job.reason or "").startswith(_SENTENCE)


def set_aside(claim: Fence | ClaimedJob, why: str) -> Settlement:
    """What a claim says of a job that it has lent and cannot read: failed, and `why` is its exception."""
    mend = "Something other than protojobs wrote it: correct that column and retry the job, or forget the job."
    return Settlement(
        id=claim.id,
        claim_seq=claim.claim_seq,
        reserved_by=claim.reserved_by,
        verb=Verb.FAIL,
        error=f"{why} {mend}",
        fingerprint=UNREADABLE,
    )


def _sentence(problems: list[str]) -> str:
    return f"{_SENTENCE}{'; '.join(problems)}."


def _read(name: str, value: object) -> tuple[object, str]:
    """The value, or its stand-in and what is wrong with it."""
    kind, is_optional = _FIELDS[name]
    if value is None and is_optional:
        return None, ""
    try:
        return kind.read(value), ""
    except ValueError:
        stand_in = None if is_optional else kind.stand_in(value)
        return stand_in, f"{name} is {_shown(value)}, not {kind.words}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}..."


class _Kind(NamedTuple):
    words: str
    read: Callable[[object], object]  # raises ValueError
    stand_in: Callable[[object], object]


def _name(value: object) -> str:
    if isinstance(value, str):
        return value
    raise ValueError


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else _name(value)


def _text_of_anything(value: object) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def _whole(minimum: int, maximum: int) -> Callable[[object], object]:
    def read_it(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= maximum:
            return value
        raise ValueError

    return read_it


def _number(maximum: float) -> Callable[[object], object]:
    def read_it(value: object) -> float:
        if not isinstance(value, bool) and isinstance(value, int | float) and 0 <= value <= maximum:  # NaN is not
            return float(value)
        raise ValueError

    return read_it


def _time(value: object) -> datetime:
    if isinstance(value, datetime):
        return value
    raise ValueError


def _state(value: object) -> JobState:
    if isinstance(value, str) and value != JobState.UNREADABLE:
        return JobState(value)
    raise ValueError


def _always(stand_in: object) -> Callable[[object], object]:
    return lambda value: stand_in


_NAME = _Kind("text", _name, _text_of_anything)
_TEXT = _Kind("text in UTF-8", _text, _text_of_anything)
_COUNT = _Kind(f"a whole number from 0 to {_COUNT_MAX}", _whole(0, _COUNT_MAX), _always(0))
_PRIORITY = _Kind("a priority", _whole(-(2**15), 2**15 - 1), _always(0))
_SECONDS = _Kind("a number of seconds", _number(DELAY_MAX_S), _always(0.0))
_SHARE = _Kind("a share from 0 to 1", _number(1.0), _always(0.0))
_TIME = _Kind("a time", _time, _always(_NO_TIME))
_STATE = _Kind("a state of a job", _state, _always(JobState.UNREADABLE))

_REQUIRED = {
    _NAME: ("id", "job_id", "queue", "job_name", "job_class", "reserved_by", "fingerprint"),
    _TEXT: ("data", "exception"),
    _COUNT: ("attempts", "max_retries", "claim_seq", "crashes", "returns", "reclaims"),
    _PRIORITY: ("priority",),
    _SECONDS: ("retry_delay", "timeout"),
    _TIME: ("created_at", "available_at", "failed_at"),
    _STATE: ("status",),
}
_OPTIONAL = {
    _TEXT: ("retry_policy", "meta", "reason"),
    _TIME: ("reserved_at", "processed_at", "cancel_requested_at"),
    _SHARE: ("progress",),
}
_FIELDS = {
    name: (kind, is_optional)
    for kinds, is_optional in ((_REQUIRED, False), (_OPTIONAL, True))
    for kind, names in kinds.items()
    for name in names
}
