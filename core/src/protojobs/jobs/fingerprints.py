"""The fingerprint of an exception: equal for failures with one cause, whatever numbers and names vary in them.

Line numbers are left out, so that a deployment does not split a group in two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from types import FrameType, TracebackType
from typing import cast

__all__ = ["fingerprint", "last_line", "template", "title"]

TITLE_CHARS_MAX = 500
MESSAGE_CHARS_MAX = 1_000
FRAMES_MAX = 10_000
_PATTERNS = (
    (re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"), "<uuid>"),
    (re.compile(r"\"[^\"\n]*\"|'[^'\n]*'|`[^`\n]*`"), "<text>"),
    (re.compile(r"\b0[xX][0-9a-fA-F]+|\b(?=[a-fA-F]*\d)[0-9a-fA-F]{8,}\b"), "<hex>"),
    (re.compile(r"\d+(?:[.,:_]\d+)*"), "<n>"),
    (re.compile(r"\s+"), " "),
)
_STANDARD_LIBRARY = str(Path(re.__file__).parent.parent / "_")[:-1]  # with the separator at its end
_INSTALLED = ("site-packages", "dist-packages")


def fingerprint(job_name: str, error: BaseException) -> str:
    """16 hexadecimal digits: the same for the same exception class, raised for the same reason in the same function.

    Of (job name, the class's module and name, the deepest frame of the application's own code as module:function, the
    message without numbers, ids and quoted texts). Of a group of exceptions the first one in it counts too.
    """
    kind = type(error)
    parts = (
        job_name,
        _told(lambda: f"{kind.__module__}.{kind.__qualname__}"),
        _told(lambda: _place(error.__traceback__)),
        _told(lambda: template(str(error))),
        *([template(first)] if (first := _told(lambda: _first_of_group(error))) else []),
    )
    return blake2b("\x1f".join(parts).encode("utf-8", "replace"), digest_size=8).hexdigest()


def template(message: str) -> str:
    """The message with what varies replaced: numbers, hexadecimal, UUIDs, quoted texts. At most 1,000 characters."""
    message = message[:MESSAGE_CHARS_MAX]
    for pattern, word in _PATTERNS:
        message = pattern.sub(word, message)
    return message.strip()


def title(error: BaseException) -> str:
    """What an exception comes to, in one line of at most 500 characters: its class, and the first line of what it says.

    Of a group also the first exception in it: that many tasks have failed says little.
    """
    kind = type(error)
    module = _told(lambda: "" if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.")
    message = _told(lambda: str(error)[:MESSAGE_CHARS_MAX])
    line = next((line.rstrip() for line in message.splitlines() if line.strip()), "")
    name = f"{module}{_told(lambda: kind.__qualname__)}"
    whole = f"{name}: {line}" if line else name
    if first := _told(lambda: _first_of_group(error)):
        whole = f"{whole}: {first}"
    return whole[:TITLE_CHARS_MAX].rstrip()


def last_line(exception: str) -> str:
    """The title of a stored traceback: its last line that says something."""
    return next((line.strip() for line in reversed(exception.splitlines()) if line.strip()), "")


def _first_of_group(error: BaseException) -> str:
    """The title of the first exception in a group, or in the first group of it; nothing of what is no group."""
    first = error
    for _ in range(FRAMES_MAX):
        if not isinstance(first, BaseExceptionGroup):
            break
        first = cast("BaseExceptionGroup[BaseException]", first).exceptions[0]
    return "" if first is error or isinstance(first, BaseExceptionGroup) else title(first)


def _told(part: Callable[[], str]) -> str:
    """The part, or nothing: an exception class may define anything, and its code must not end more than its job."""
    try:
        return part()
    except BaseException:  # noqa: BLE001  (its `__str__` may call sys.exit(); `traceback` passes over that too)
        return ""


def _place(trace: TracebackType | None) -> str:
    deepest = own = None
    for frame in islice(_frames(trace), FRAMES_MAX):
        module = str(frame.f_globals.get("__name__", ""))
        if module == "protojobs" or module.startswith("protojobs."):
            continue
        deepest = frame
        if _is_the_applications(frame.f_code.co_filename):
            own = frame
    place = own or deepest
    return "" if place is None else f"{place.f_globals.get('__name__', '')}:{place.f_code.co_qualname}"


def _frames(trace: TracebackType | None) -> Iterator[FrameType]:
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


def _is_the_applications(file: str) -> bool:
    return not file.startswith((_STANDARD_LIBRARY, "<frozen ")) and not any(part in file for part in _INSTALLED)
