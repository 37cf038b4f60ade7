"""Values as people read them. Whatever a store holds becomes inert text: nothing that reorders, hides or runs."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from markupsafe import Markup, escape

__all__ = [
    "age",
    "compact",
    "counted",
    "duration",
    "editable",
    "exact",
    "laid_out",
    "percent",
    "seconds",
    "short",
    "visible",
    "when",
]

COUNTED_MAX = 10_000  # to which an Inspector counts live jobs
NAME_CHARS_MAX = 80  # of a name in a table; the page of the thing itself shows all of it
JSON_CHARS_MAX = 64 * 1024  # of a job's data on its page
JSON_LINES_MAX = 2_000  # the rest follows as it is stored
_INDENT_MAX = 24  # levels; deeper ones stay at that column

# Control characters, marks that reorder or hide text, halves of surrogate pairs, and tags. The two joiners stay, which
# scripts and emoji need.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\uffff\ud800-\udfff"
    "\U000e0000-\U000e0fff]"
)
_OPENING = {"{": "}", "[": "]"}
# A string that nothing closes is one all the same: without, each quote in it would be tried to the end of the text.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|[{}\[\],:]|[^\s{}\[\],:"]+')


def visible(value: object) -> object:
    """Text with each character that hides or reorders written as `\\u202e`; anything else, and markup, as it is.

    The templates' `finalize`: no value gets to a page around it.
    """
    if isinstance(value, Markup):
        return value
    if isinstance(value, str):
        return _HIDDEN.sub(_spelled, value)
    return "" if value is None else value


def exact(value: object) -> Markup:
    """The text itself, for fields that a form sends back. Only what UTF-8 cannot carry is replaced."""
    return escape(re.sub("[\ud800-\udfff]", "\ufffd", str(value)))


def editable(text: str) -> Markup:
    """JSON text for a field, with what hides or reorders as JSON's own escapes: the same value, and to be seen."""
    return escape(_HIDDEN.sub(_escaped, text))


def short(value: object, chars: int = NAME_CHARS_MAX) -> str:
    """At most so many characters, with an ellipsis where there were more."""
    text = str(value)
    return text if len(text) <= chars else f"{text[: chars - 1]}…"


def seconds(value: float | None) -> str:
    """A duration to the precision at which people compare: `12 ms`, `3.4 s`, `5 min 20 s`, `2 d 3 h`."""
    if value is None:
        return "–"
    sign, value = ("−" if value < 0 else ""), abs(value)
    if value < 1:
        return f"{sign}{round(value * 1000)} ms"
    if value < 10:
        return f"{sign}{value:.1f} s"
    whole = round(value)
    for large, small, one, other in ((86_400, 3600, "d", "h"), (3600, 60, "h", "min"), (60, 1, "min", "s")):
        if whole >= large:
            rest = whole % large // small
            return f"{sign}{whole // large} {one}" + (f" {rest} {other}" if rest else "")
    return f"{sign}{whole} s"


def duration(begun: datetime | None, ended: datetime | None) -> str:
    """The time between two moments; a clock that was set back shows as a negative one."""
    return "–" if begun is None or ended is None else seconds((ended - begun).total_seconds())


def age(moment: datetime | None, now: datetime) -> Markup:
    """`3 min ago` or `in 2 h`, with the moment itself for machines and for the pointer."""
    if moment is None:
        return Markup("–")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(_iso(moment), _utc(moment), _distance(moment, now))


def when(moment: datetime | None, now: datetime) -> Markup:
    """The moment in UTC and how long ago that was."""
    if moment is None:
        return Markup("–")
    return Markup('<time datetime="{}">{}</time> <span class="quiet">({})</span>').format(
        _iso(moment), _utc(moment), _distance(moment, now)
    )


def compact(number: float | None, *, is_capped: bool = False) -> str:
    """A count with its thousands apart; with `+` where it stopped at a bound."""
    return "–" if number is None else f"{number:,.0f}{'+' if is_capped else ''}"


def counted(number: int, is_estimate: bool) -> str:
    """A count of live jobs: exact below the bound of counting, `10,000+` at it, `≈ 250,000` where a store guesses."""
    if not is_estimate or number < COUNTED_MAX:
        return f"{number:,}"
    return f"≈ {number:,}" if number > COUNTED_MAX + 1 else f"{COUNTED_MAX:,}+"


def percent(share: float | None) -> str:
    """A share of 1 as a percentage."""
    return "–" if share is None else f"{share * 100:.1f} %"


def laid_out(text: str) -> str:
    """JSON over several lines, token by token: big numbers, doubled keys and broken ends stay as they are stored.

    It does not parse, so depth costs nothing; and it keeps what it does not understand.
    """
    lines = [""]
    depth, before = 0, ""
    cut = text[:JSON_CHARS_MAX]
    for found in _TOKEN.finditer(cut):
        if len(lines) >= JSON_LINES_MAX:
            lines.append(cut[found.start() :])
            break
        token = found.group()
        if before in _OPENING and token != _OPENING[before]:
            lines.append(_margin(depth))
        elif token in _OPENING.values() and before not in _OPENING:
            lines.append(_margin(depth - 1))
        lines[-1] += f"{token} " if token == ":" else token
        depth += (token in _OPENING) - (token in _OPENING.values())
        if token == ",":
            lines.append(_margin(depth))
        before = token
    more = len(text) - len(cut)
    return "\n".join(lines) + (f"\n… {more:,} more characters" if more else "")


def _margin(depth: int) -> str:
    return "  " * max(0, min(depth, _INDENT_MAX))


def _spelled(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _escaped(found: re.Match[str]) -> str:
    pair = found.group().encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{pair[at : at + 2].hex()}" for at in range(0, len(pair), 2))


def _distance(moment: datetime, now: datetime) -> str:
    passed = (now - moment).total_seconds()
    if abs(passed) < 1:
        return "now"
    whole = round(abs(passed))
    words = f"{whole} s" if whole < 60 else seconds(whole)
    return f"{words} ago" if passed > 0 else f"in {words}"


def _utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _iso(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}Z"
