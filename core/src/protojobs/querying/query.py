"""The search language of the command line, the dashboard and the JSON API: text -> Query.

    state:failed,processing queue:emails job:Send* took:>30s waited:>1m attempt:>=3 prio:>5 created:>-2h
    created:2026-11-01..2026-11-03 worker:ID id:ID error:"connection refused" fp:3fa1c2 data.user.id:42 -queue:tests

A blank means *and*, a comma *any of*, `-` *not*, `*` any characters, `..` a range; quotes hold blanks and commas. A
backslash takes the `*`, `"` or backslash behind it literally, inside of quotes and outside: `quoted` writes them so.
`error:` (part of the traceback, in any case) and `fp:` (the beginning of a fingerprint) speak of failed jobs only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime

from msgspec import Struct

from protojobs.clock import SYSTEM_CLOCK
from protojobs.errors import OptionInvalid, QueryInvalid, did_you_mean, one_line, shown
from protojobs.port.lifecycle import JobState
from protojobs.port.records import FailedJob, JobFilter, JobRecord
from protojobs.querying.terms import (
    ESCAPED,
    STATES,
    Seen,
    Test,
    duration_test,
    glob,
    has_star,
    is_pattern,
    literal,
    number_test,
    path_test,
    state_test,
    time_test,
)

__all__ = ["KEYS", "QUERY_CHARS_MAX", "Query", "parse", "quoted", "words"]

QUERY_CHARS_MAX = 2_000
TERMS_MAX = 50
VALUES_MAX = 200  # of one term
PATTERNS_MAX = 50  # of fields of data and meta, in all: each is held against all that a job has there, perhaps 10,000
PATH_MAX = 20  # steps into data

# key -> what it looks at, for help texts. `data.` and `meta.` go on with a path.
KEYS: Mapping[str, str] = {
    "state": f"one of {', '.join(STATES)}",
    "queue": "the queue's name",
    "job": "the job's name",
    "id": "the job's id",
    "worker": "the id of the worker that holds it",
    "attempt": "how many attempts it has had",
    "prio": "its priority",
    "took": "how long its last run took, or takes already",
    "waited": "how long it waited from its due time on, or waits already",
    "created": "when it was pushed",
    "due": "when it is due",
    "taken": "when a worker took it last",
    "finished": "when it completed, failed or was cancelled",
    "error": "part of a failed job's traceback",
    "fp": "the beginning of a failed job's fingerprint",
    "data.": "a field of its data, by a path such as data.user.id",
    "meta.": "a field of its meta",
}
_PATHS = ("data.", "meta.")
_IN_STORE = frozenset(state.value for state in JobState)  # words of `state:` that the store itself can tell
_OTHER = rf"{ESCAPED.pattern}|\\(?![*\"\\])"  # a backslash, with what it escapes
_TERM = re.compile(rf'(?:[^\s"\\]|{_OTHER}|"(?:[^"\\]|{_OTHER})*"?)+')
_PART = re.compile(rf'"((?:[^"\\]|{_OTHER})*)"|((?:[^",\\]|{_OTHER})+)|(,)')
_HEX = re.compile(r"[0-9a-f]{1,32}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Term(Struct, frozen=True):
    """One condition: any of its tests, or with `is_negated` none of them. `values` stand as they are written."""

    key: str
    values: tuple[str, ...]
    tests: tuple[Test, ...]
    is_negated: bool

    @property
    def exact(self) -> tuple[str, ...] | None:
        """The texts that are meant; None where a `*` in one of them stands for any characters."""
        return None if any(has_star(value) for value in self.values) else tuple(map(literal, self.values))

    def holds(self, seen: Seen) -> bool:
        """Whether the job meets it."""
        return any(test(seen) for test in self.tests) != self.is_negated


class Query(Struct, frozen=True, kw_only=True):
    """What is looked for: `which` is for the store to filter, `matches` decides."""

    text: str
    terms: tuple[Term, ...]
    now: datetime  # to which `created:>-2h` and `state:ready` refer
    which: JobFilter
    is_void: bool = False  # its states exclude each other: nothing can match
    needs_failure: bool = False  # `matches` must be given the failed_jobs row

    def matches(self, job: JobRecord, failure: FailedJob | None = None) -> bool:
        """Whether the job meets every term."""
        seen = Seen(job, failure, self.now)
        return not self.is_void and all(term.holds(seen) for term in self.terms)

    @property
    def is_decided_by_store(self) -> bool:
        """Whether all that `which` selects matches."""
        exact = {"queue": self.which.queue, "job": self.which.job_name}
        return not self.is_void and not any(
            term.is_negated
            or (not _IN_STORE.issuperset(term.values) if term.key == "state" else (exact.get(term.key),) != term.exact)
            for term in self.terms
        )

    @property
    def ids(self) -> tuple[str, ...] | None:
        """The ids of the jobs among which it looks, where it names them."""
        return self._exact("id")

    @property
    def fingerprint(self) -> str | None:
        """The one fingerprint (or the beginning of one) that it asks for."""
        values = self._exact("fp")
        return values[0] if values is not None and len(values) == 1 else None

    def at(self, now: datetime) -> Query:
        """The same, asked at another moment."""
        return _query(self.text, self.terms, now)

    def narrowed(self, states: frozenset[JobState]) -> Query:
        """The same among jobs in these states; void where it asks for others only."""
        terms: list[Term] = []
        has_states = False
        for term in self.terms:
            if term.key == "state" and not term.is_negated:
                has_states = True
                term = _state_term(word for word in term.values if STATES[word] <= states)
            terms.append(term)
        if not has_states:
            terms.append(_state_term(state.value for state in JobState if state in states))
        return _query(self.text, tuple(terms), self.now)

    def _exact(self, key: str) -> tuple[str, ...] | None:
        for term in self.terms:
            if term.key == key and not term.is_negated and term.exact is not None:
                return term.exact
        return None


def parse(text: str, *, now: datetime | None = None) -> Query:
    """The query of that text; empty: every job. Raises QueryInvalid with what was meant, perhaps.

    `now` is that of the store where one is asked; by default this machine's.
    """
    if len(text) > QUERY_CHARS_MAX:
        raise QueryInvalid(f"The query has {len(text):,} characters.", mend=f"At most {QUERY_CHARS_MAX:,}.")
    quotes = ESCAPED.sub("..", text)
    if quotes.count('"') % 2:  # whatever is written behind it would be part of what it began
        start = quotes.rindex('"')
        raise QueryInvalid(
            f"No quote closes the one before {shown(text[start + 1 :], 40)}.",
            mend='Write it like error:"connection refused"; for a quote itself write \\".',
        )
    terms = tuple(_term(word) for word in words(text))
    if len(terms) > TERMS_MAX:
        raise QueryInvalid(f"The query has {len(terms)} terms.", mend=f"At most {TERMS_MAX} are allowed.")
    patterns = sum(is_pattern(value) for term in terms if term.key.startswith(_PATHS) for value in term.values)
    if patterns > PATTERNS_MAX:
        raise QueryInvalid(
            f"The query has {patterns} patterns and ranges of data.", mend=f"At most {PATTERNS_MAX} are allowed."
        )
    return _query(text, terms, now or SYSTEM_CLOCK.now())


def words(text: str) -> list[str]:
    """The terms of a query as they are written, also of one that is none yet."""
    return _TERM.findall(text)


def quoted(value: str, *, with_stars: bool = False) -> str:
    """`value` as it is written in a query, to be found as it is: in quotes where it holds a blank or a comma, and with
    a backslash before each `*`, `"` and backslash. `with_stars`: a `*` in it stands for any characters.
    """
    value = re.sub(r'["\\]' if with_stars else r'[*"\\]', r"\\\g<0>", value)
    return f'"{value}"' if not value or re.search(r"[\s,]", value) else value


def _query(text: str, terms: tuple[Term, ...], now: datetime) -> Query:
    states = frozenset(JobState)
    for term in terms:
        if term.key == "state" and not term.is_negated:
            states &= frozenset().union(*(STATES[value] for value in term.values))
        elif term.key == "state":
            states -= {JobState(value) for value in _IN_STORE.intersection(term.values)}
    needs_failure = any(term.key in ("error", "fp") for term in terms)
    if needs_failure:
        states &= {JobState.FAILED}
    is_all = states == frozenset(JobState)
    which = JobFilter(
        states=() if is_all else tuple(state for state in JobState if state in states),
        queue=_single(terms, "queue"),
        job_name=_single(terms, "job"),
    )
    return Query(text=text, terms=terms, now=now, which=which, is_void=not states, needs_failure=needs_failure)


def _state_term(words: Iterable[str]) -> Term:
    values = tuple(words)
    return Term("state", values, tuple(state_test(word) for word in values), False)


def _single(terms: tuple[Term, ...], key: str) -> str | None:
    for term in terms:
        if term.key == key and not term.is_negated and term.exact is not None and len(term.exact) == 1:
            return term.exact[0]
    return None


def _term(word: str) -> Term:
    is_negated = word.startswith("-")
    key, separator, rest = word[is_negated:].partition(":")
    said = one_line(key, 60)
    if not separator:
        if _UUID.fullmatch(key):
            return _term(f"{'-' * is_negated}id:{key}")
        raise QueryInvalid(f"{shown(word, 60)} has no key.", mend=f"Write job:{said}* or error:{said} or the like.")
    values = tuple(dict.fromkeys(_values(rest)))
    if not values:
        raise QueryInvalid(f"{said}: is followed by nothing.", mend=f"{said}: looks at {KEYS.get(key, said)}.")
    if len(values) > VALUES_MAX:
        raise QueryInvalid(f"{said}: has {len(values)} values.", mend=f"At most {VALUES_MAX} are allowed.")
    return Term(key, values, _tests(key, values), is_negated)


def _values(text: str) -> Iterator[str]:
    """The parts between commas; quoted pieces belong to the part in which they stand."""
    whole: str | None = None
    for inside, outside, comma in _PART.findall(text):
        if comma:
            if whole is not None:
                yield whole
            whole = None
        else:
            whole = (whole or "") + (inside or outside)
    if whole is not None:
        yield whole


_NUMBERS: dict[str, Callable[[Seen], float]] = {
    "attempt": lambda seen: seen.job.attempts,
    "prio": lambda seen: seen.job.priority,
}
_DURATIONS: dict[str, Callable[[Seen], float | None]] = {
    "took": lambda seen: seen.took_s,
    "waited": lambda seen: seen.waited_s,
}
_TIMES: dict[str, Callable[[Seen], datetime | None]] = {
    "created": lambda seen: seen.job.created_at,
    "due": lambda seen: seen.job.available_at,
    "taken": lambda seen: seen.job.reserved_at,
    "finished": lambda seen: seen.job.processed_at,
}
_TEXTS: dict[str, Callable[[Seen], str]] = {
    "queue": lambda seen: seen.job.queue,
    "job": lambda seen: seen.job.job_name,
    "id": lambda seen: seen.job.id,
    "worker": lambda seen: seen.job.reserved_by,
}


def _tests(key: str, values: tuple[str, ...]) -> tuple[Test, ...]:
    try:
        if key not in KEYS or key in _PATHS:
            return (_path_test(key, values),)
        return tuple(_test(key, value) for value in values)
    except QueryInvalid:
        raise
    except OptionInvalid as error:
        raise QueryInvalid(error.message, mend=error.mend) from error  # which begins with the key


def _test(key: str, value: str) -> Test:
    if key == "state":
        return state_test(value)
    if key in _NUMBERS:
        return number_test(key, value, _NUMBERS[key])
    if key in _DURATIONS:
        return duration_test(key, value, _DURATIONS[key])
    if key in _TIMES:
        return time_test(key, value, _TIMES[key])
    if key in _TEXTS:
        is_met, read = glob(value), _TEXTS[key]
        return lambda seen: is_met(read(seen))
    if key == "error":
        holds = glob(value.casefold(), is_part=True)
        return lambda seen: seen.error is not None and holds(seen.error)
    assert key == "fp"
    return _fingerprint_test(value)


def _fingerprint_test(value: str) -> Test:
    start = value.lower()
    if not _HEX.fullmatch(start):
        raise QueryInvalid(f"fp: {shown(value, 60)} is no fingerprint.", mend="It has up to 16 digits of 0-9 and a-f.")
    return lambda seen: seen.failure is not None and seen.failure.fingerprint.startswith(start)


def _path_test(key: str, values: tuple[str, ...]) -> Test:
    root, dot, rest = key.partition(".")
    path = rest.split(".")
    if root not in ("data", "meta") or not dot:
        meant = "data." if root == "args" else ""
        mend = f'Did you mean "{meant}"?' if meant else did_you_mean(root if dot else key, KEYS)
        raise QueryInvalid(f'There is no key "{one_line(key, 60)}".', mend=mend or f"Known: {', '.join(KEYS)}.")
    if not all(path) or len(path) > PATH_MAX:
        raise QueryInvalid(f'"{one_line(key, 60)}" is no path.', mend="Write it like data.user.id:42.")
    return path_test(key, values)
