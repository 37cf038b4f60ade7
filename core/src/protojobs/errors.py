"""Every exception that protojobs raises, in one tree.

Each message answers three questions: what happened, why, and how to mend it. The facts are attributes as well, so that
a program need not read prose. Foreign exceptions are translated once, at a driver's edge, with `raise ... from exc`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from enum import Enum
from types import BuiltinFunctionType, FunctionType
from typing import cast

__all__ = [
    "ConfigurationError",
    "ContractBroken",
    "DataInvalid",
    "DriverError",
    "DriverNotFound",
    "Forbidden",
    "JobCrashed",
    "JobError",
    "JobLost",
    "JobRaised",
    "JobTimeout",
    "JobUnknown",
    "LeaseLost",
    "NotSupported",
    "OptionInvalid",
    "PayloadError",
    "PayloadNotDecodable",
    "PayloadNotEncodable",
    "PayloadTooLarge",
    "ProtojobsError",
    "PushRejected",
    "QueryInvalid",
    "ResourceFailed",
    "ResultInvalid",
    "ScheduleUnknown",
    "ScheduleUnreadable",
    "SchemaOutdated",
    "StoreUnavailable",
    "closest",
    "did_you_mean",
    "one_line",
    "shown",
]

SHOWN_CHARS_MAX = 500  # of what somebody gave, in a sentence about it
_SHOWN_DEPTH = 10  # of lists in lists
_BRACKETS: dict[type, tuple[str, str]] = {
    **{list: ("[", "]"), tuple: ("(", ")"), set: ("{", "}"), frozenset: ("{", "}"), dict: ("{", "}")}
}
_SHORT = frozenset({int, float, complex, bool, type(None)})  # what `repr` writes in a few characters
_SHORT_IN = frozenset({"datetime", "decimal", "fractions", "pathlib", "uuid", "zoneinfo"})  # modules of such classes


class ProtojobsError(Exception):
    """The root: catch this to catch everything of ours.

    `mend` is the sentence that says what to do; it is part of `str(error)` too.
    """

    def __init__(self, message: str, *, mend: str = "") -> None:
        super().__init__(f"{message} {mend}".rstrip())
        self.message = message
        self.mend = mend


class ConfigurationError(ProtojobsError):
    """A setting, name or option is wrong; found before any work starts."""


class OptionInvalid(ConfigurationError, ValueError):
    """A value is outside what its option allows: a name, a delay, a priority, a date."""


class DriverNotFound(ConfigurationError):
    """No installed driver answers to the URL's scheme; the message names the `pip install` to type."""


class JobUnknown(ConfigurationError, LookupError):
    """No job of this name (or class) has been imported in this process."""


class ScheduleUnknown(ConfigurationError, LookupError):
    """No schedule of this id is stored."""


class NotSupported(ConfigurationError):
    """The driver does not claim the capability that this call needs."""


class QueryInvalid(OptionInvalid):
    """A search query says something that the query language does not have."""


class Forbidden(ProtojobsError):
    """The person's role does not allow it; nothing was done."""


class PushRejected(ProtojobsError):
    """A plugin vetoed the push, or failed while it transformed the job; nothing was stored."""


class ResourceFailed(ProtojobsError):
    """A resource could not be opened, so the worker has not started; `__cause__` says why. No job was claimed."""


class PayloadError(ProtojobsError, ValueError):
    """A job's data cannot cross the store. `path` names the place in the data, such as `$.user.id`."""

    def __init__(self, message: str, *, path: str = "$", mend: str = "") -> None:
        super().__init__(message, mend=mend)
        self.path = path


class PayloadNotEncodable(PayloadError):
    """The data holds something that JSON cannot carry without loss."""


class PayloadTooLarge(PayloadNotEncodable):
    """The encoded data is larger than `payload_bytes_max`."""


class DataInvalid(PayloadError, TypeError):
    """The data does not fit the type that the job declares for it."""


class PayloadNotDecodable(PayloadError):
    """What the store holds is not valid data of this job, as this process knows it.

    The job goes back unspent, for a worker of another release to run it. After a day it counts as a failed attempt.
    Nothing is lost.
    """


class DriverError(ProtojobsError):
    """The store refused or could not be reached."""


class StoreUnavailable(DriverError):
    """The store did not answer, or answered that it cannot now; the outcome may be unknown. May be retried.

    `job_ids` are the ids of a `push` that got no answer: pushing again with the same id stores the job once.
    `stored_ids` are those that an interrupted `push_many` had stored before.
    """

    def __init__(
        self, message: str, *, mend: str = "", job_ids: tuple[str, ...] = (), stored_ids: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message, mend=mend)
        self.job_ids = job_ids
        self.stored_ids = stored_ids


class SchemaOutdated(DriverError):
    """The database's tables are missing, or older or newer than this version of protojobs."""


class ContractBroken(DriverError):
    """The store holds or answered something that the driver contract rules out. Retrying will not help."""


class ScheduleUnreadable(ContractBroken):
    """A schedule is stored in a form that cannot be read here; it never fires. Nothing else is held up by it."""


class LeaseLost(ProtojobsError):
    """This worker's lease no longer stands: other workers may have its jobs. Drop what was not started."""


class JobError(ProtojobsError):
    """A run ended without an answer of its own; the text lands in `failed_jobs.exception`."""


class JobTimeout(JobError, TimeoutError):
    """The run has used up its time. Raised in the run itself when its `soft_timeout` is over, so that it can clean up;
    of a run that was ended by its `timeout`, the reason that is stored. Either counts as a failed attempt.
    """

    def __init__(self, message: str = "the run outlasted its soft_timeout", *, mend: str = "") -> None:
        super().__init__(message, mend=mend)


class ResultInvalid(JobError, TypeError):
    """What the job returned shows that its work is not done, such as a coroutine: that counts as a failed attempt. Or,
    with `store_result`, that it cannot be kept: that fails the job at once.
    """


class JobCrashed(JobError):
    """The process that ran the job died of it; the message names the signal or the exit code."""


class JobRaised(JobError):
    """What a job raised in a child process: exceptions cross as text, since unpickling one could run anything.

    `type_name` is the name of the exception's class, `raised` what it said.
    """

    def __init__(self, type_name: str, raised: str) -> None:
        super().__init__(f"{type_name}: {raised}" if raised else type_name)
        self.type_name = type_name
        self.raised = raised


class JobLost(JobError):
    """No result came of the job's last attempt, as when its worker died in it. It is given up, and not run again."""


class NoResult(ProtojobsError):
    """A job that was asked for has no result to give: the subclass says why."""


class JobUnfinished(NoResult):
    """It has not ended yet: `queue.wait_for` waits for it."""


class JobHasFailed(NoResult):
    """It has failed for good. `error` is the last line of its traceback; the whole is in `failed_jobs`."""

    def __init__(self, message: str, *, error: str) -> None:
        super().__init__(message)
        self.error = error


class JobWasCancelled(NoResult):
    """It was cancelled, by a person or by its own wish; `reason` may be empty."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class ResultNotKept(NoResult):
    """It has completed, and what it returned was not kept: the job does not say `store_result=True`."""


class JobMissing(NoResult, LookupError):
    """The store has no such job: it was pruned or cleared, or its push is not committed yet."""


class WaitTimeout(ProtojobsError, TimeoutError):
    """The job has not ended within the time that the caller had. It goes on all the same."""


class WaitInsideJob(ConfigurationError):
    """A running job wanted to wait for another one: with all slots waiting so, nobody would run what they wait for."""


def did_you_mean(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """`Did you mean "x"?` for the closest known word, or an empty string. `cutoff`: how alike, from 0 to 1."""
    close = closest(word, known, cutoff=cutoff)
    return f'Did you mean "{close}"?' if close else ""


def closest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """The known word that is most like it, or an empty string. `cutoff`: how alike, from 0 to 1."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)), "")


def one_line(text: str, chars_max: int = SHOWN_CHARS_MAX) -> str:
    """`text` from elsewhere within a sentence: cut when long, and with its control characters written out, so that it
    cannot begin a line of a log that nobody has written.
    """
    written = text[:chars_max]
    if not written.isprintable():
        written = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in written)
    return written if len(text) <= chars_max and len(written) <= chars_max else f"{written[:chars_max]}..."


def shown(value: object, chars_max: int = SHOWN_CHARS_MAX) -> str:
    """`value` as an error message may echo it: as `repr` has it where that is short, and on one line.

    It never fails and never takes long, whatever the value. An object is named by its class: its own `repr` may fail,
    hold secrets, or have no end.
    """
    text = ""
    try:
        for piece in _pieces(value, 0, chars_max):
            text += piece
            if len(text) > chars_max:  # what is not asked for is not made
                break
    except Exception:  # noqa: BLE001  (a hostile class, or one that changes meanwhile: the error is about something else)
        text += "..."
    return text if len(text) <= chars_max else f"{text[:chars_max]}..."


def _pieces(value: object, depth: int, chars_max: int) -> Iterator[str]:
    kind = type(value)
    if kind is str or kind is bytes:
        text = cast("str", value)
        yield repr(text[:chars_max]) + ("..." if len(text) > chars_max else "")
    elif kind in _BRACKETS:
        opening, closing = _BRACKETS[kind]
        yield opening
        if depth < _SHOWN_DEPTH:
            yield from _items(cast("list[object]", value), depth + 1, chars_max)
        else:
            yield "..."
        yield closing
    else:
        yield one_line(_word(value, kind), chars_max)


def _items(values: list[object] | dict[object, object], depth: int, chars_max: int) -> Iterator[str]:
    for index, item in enumerate(values):
        yield ", " if index else ""
        yield from _pieces(item, depth, chars_max)
        if isinstance(values, dict):
            yield ": "
            yield from _pieces(values[item], depth, chars_max)


def _word(value: object, kind: type) -> str:
    if isinstance(value, Enum):
        return f"{kind.__qualname__}.{value.name}"
    if isinstance(value, type):
        return type.__repr__(value)
    if isinstance(value, FunctionType | BuiltinFunctionType):
        return f"<function {value.__qualname__}>"
    if isinstance(value, BaseException):
        return f"{kind.__qualname__}: {value}"
    if kind is int and cast("int", value).bit_length() > SHOWN_CHARS_MAX:  # Python refuses to write the largest
        return f"<a whole number of {cast('int', value).bit_length():,} bits>"
    if kind in _SHORT or kind.__module__ in _SHORT_IN:
        with suppress(Exception):  # a class may say that it is one of the library's
            return repr(value)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"<{module}{kind.__qualname__} object>"
