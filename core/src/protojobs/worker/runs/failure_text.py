"""What is stored of an exception: its traceback as text, without our own frames, cut to what every store can keep."""

from __future__ import annotations

import traceback
from contextlib import suppress
from types import TracebackType
from typing import cast

from protojobs.jobs.fingerprints import fingerprint, last_line, title
from protojobs.port.records import ClaimedJob
from protojobs.worker.outcome import Details

__all__ = ["ERROR_CHARS_MAX", "forget_locals", "storable", "with_error"]

ERROR_CHARS_MAX = 60_000  # with four-byte characters cut by the stores' columns at 64 KiB
REASON_CHARS_MAX = 500
EXCEPTIONS_MAX = 1_000  # of a chain or a group, that are shortened, and whose frames are emptied
NOTES_MAX = 100  # of an exception


def with_error(claimed: ClaimedJob, details: Details, exception: BaseException | None) -> Details:
    """The details of a settlement, with the text of an exception and its fingerprint, if there is one."""
    if "reason" in details:
        details = {
            **details,
            "reason": storable(_reason_text(details["reason"])[:ERROR_CHARS_MAX].strip())[:REASON_CHARS_MAX],
        }
    if exception is None:
        return details
    return {**details, "error": _error_text(exception), "fingerprint": fingerprint(claimed.job_name, exception)}


def forget_locals(exception: BaseException | None) -> None:
    """Let go of what its frames hold, now that its text is made: an exception lives on in events, and in `failed()`."""
    left, seen = [] if exception is None else [exception], set[int]()
    while left and len(seen) < EXCEPTIONS_MAX:
        error = left.pop()
        if id(error) not in seen:
            seen.add(id(error))
            with suppress(Exception):  # an exception class may define anything
                traceback.clear_frames(error.__traceback__)
                left += [one for one in (error.__cause__, error.__context__) if one is not None]
                if isinstance(error, BaseExceptionGroup):
                    left += cast("BaseExceptionGroup[BaseException]", error).exceptions


def _reason_text(reason: object) -> str:
    try:
        return str(reason)
    except Exception as error:  # noqa: BLE001  (a job may discard itself for a reason with a `__str__` of its own)
        return f"a {type(reason).__name__} whose text cannot be had: {type(error).__name__}"


def _error_text(error: BaseException) -> str:
    """The traceback as text, without our own frames, cut in the middle beyond ERROR_CHARS_MAX."""
    try:
        return _traceback_text(error)
    except Exception as own:  # noqa: BLE001  (an exception class may define anything, `__traceback__` and `__notes__` too)
        return f"{type(error).__qualname__}, whose traceback cannot be told: {type(own).__name__}"


def _traceback_text(error: BaseException) -> str:
    trace = _users_part(error.__traceback__)
    try:
        told = traceback.TracebackException(type(error), error, trace, compact=True)
        _shorten(told)
        lines = list(told.format())
    except SystemError:  # CPython before 3.11.8 and 3.12.2, when two threads do this at once (its issue 106905)
        frames = traceback.walk_tb(trace)
        lines = [f'  File "{frame.f_code.co_filename}", line {n}, in {frame.f_code.co_name}\n' for frame, n in frames]
    text = _cut(storable("".join(lines)))
    # Lists show the last line, and may get no more than the end of the text. But a group of exceptions ends with a
    # ruler, one with notes with a note, and what has several lines to say with what says little.
    line = storable(title(error))
    return text if last_line(text) == line else f"{text.rstrip()}\n\n{line}\n".lstrip()


def _shorten(told: traceback.TracebackException) -> None:
    """Cut what the exceptions say before it is put together: it is copied a dozen times on the way."""
    left, seen = [told], set[int]()
    while left and len(seen) < EXCEPTIONS_MAX:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        for name in ("_str", "msg"):  # what it says; of a SyntaxError
            if isinstance(said := vars(one).get(name), str):
                vars(one)[name] = _cut(said)
        if isinstance(notes := vars(one).get("__notes__"), list):
            notes = cast("list[object]", notes)[:NOTES_MAX]
            vars(one)["__notes__"] = [_cut(note) if isinstance(note, str) else note for note in notes]
        left += [other for other in (one.__cause__, one.__context__, *(one.exceptions or ())) if other is not None]


def _cut(text: str) -> str:
    """At most ERROR_CHARS_MAX, cut in the middle."""
    if len(text) <= ERROR_CHARS_MAX:
        return text
    half = ERROR_CHARS_MAX // 2
    return f"{text[:half]}\n... {len(text) - ERROR_CHARS_MAX:,} characters cut ...\n{text[-half:]}"


def storable(text: str) -> str:
    """Text that every store can keep: neither halves of surrogate pairs nor NUL."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")


def _users_part(trace: TracebackType | None) -> TracebackType | None:
    first = trace
    while trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).startswith("protojobs."):
        trace = trace.tb_next
    return trace or first
