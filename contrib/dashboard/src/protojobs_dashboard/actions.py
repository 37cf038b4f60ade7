"""Everything that can be done here: one table, from which the forms and the JSON API both have their routes.

An action calls one verb of the Inspector, which checks the right and writes the audit log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import cast

from msgspec import Struct

from protojobs.errors import OptionInvalid, shown
from protojobs.inspector import Action as Bulk
from protojobs.inspector import Count, ForgetAnswer, Inspector
from protojobs.port.records import CancelAnswer, RetryAnswer
from protojobs.querying import quoted

__all__ = ["ACTIONS", "Action", "Answer", "Given", "Question", "notice"]

IDS_MAX = 1_000  # ticked, or named in one call


class Given:
    """What came with a request: texts by name. Raises OptionInvalid for what is missing."""

    def __init__(self, fields: Mapping[str, Sequence[str]]) -> None:
        self.fields = fields

    def one(self, name: str) -> str:
        """The value of that name, which must be there."""
        values = self.fields.get(name, ())
        if len(values) != 1 or not values[0]:
            raise OptionInvalid(f'"{name}" is missing.' if not values else f'"{name}" must be one text, not empty.')
        return values[0]

    def maybe(self, name: str) -> str:
        """The value of that name, or nothing."""
        return next(iter(self.fields.get(name, ())), "")

    def ids(self) -> list[str]:
        """The jobs that are meant, each once."""
        ids = list(dict.fromkeys(one for one in self.fields.get("ids", ()) if one))
        if not ids:
            raise OptionInvalid("No job is ticked.", mend="Tick some, or act on all that match.")
        if len(ids) > IDS_MAX:
            raise OptionInvalid(
                f"These are {len(ids):,} jobs.", mend=f"At most {IDS_MAX:,}; else act on all that match."
            )
        return ids


class Answer(Struct, frozen=True, kw_only=True):
    """What an action did: `value` for programs; for people the numbers, and the page to go to."""

    value: object
    done: int = 1
    refused: int = 0
    to: str = ""  # the path; empty: back to where they came from
    params: Mapping[str, str] = {}


class Question(Struct, frozen=True, kw_only=True):
    """What a person is asked before it is done. With `typed` they must type that text; `seen` comes back with a yes."""

    words: str
    button: str
    typed: str = ""
    seen: Mapping[str, str] = {}


class Action(Struct, frozen=True, kw_only=True):
    """Something that can be done. `past` says it afterwards, `ask` before; None: it is done at once."""

    name: str  # its path, below / and below /api/v1/
    past: str
    perform: Callable[[Inspector, Given], Answer]
    ask: Callable[[Inspector, Given], Question] | None = None
    again: str = ""  # the template that shows what they typed, and what is wrong with it


def _retry(inspector: Inspector, given: Given) -> Answer:
    ids = given.ids()
    answers = inspector.retry(ids)
    return _each(ids, answers, answers.count(RetryAnswer.REQUEUED))


def _cancel(inspector: Inspector, given: Given) -> Answer:
    ids = given.ids()
    answers = inspector.cancel(ids, reason=given.maybe("reason"))
    return _each(ids, answers, answers.count(CancelAnswer.CANCELLED) + answers.count(CancelAnswer.REQUESTED))


def _forget(inspector: Inspector, given: Given) -> Answer:
    ids = given.ids()
    answers = inspector.forget(ids)
    return _each(ids, answers, answers.count(ForgetAnswer.FORGOTTEN), to="/jobs" if len(ids) == 1 else "")


def _ask_forget(_inspector: Inspector, given: Given) -> Question:
    number = len(given.ids())
    jobs = "this failed job" if number == 1 else f"these {number} failed jobs"
    return Question(words=f"Delete {jobs} for good, data and traceback?", button="Forget")


def _edit(inspector: Inspector, given: Given) -> Answer:
    new_id = inspector.retry_edited(given.one("id"), given.one("data"))
    return Answer(value={"id": new_id}, to=f"/jobs/{new_id}")


def _pause(inspector: Inspector, given: Given) -> Answer:
    return _switched(inspector.pause(given.one("queue")))


def _resume(inspector: Inspector, given: Given) -> Answer:
    return _switched(inspector.resume(given.one("queue")))


def _clear(inspector: Inspector, given: Given) -> Answer:
    cleared = inspector.clear(given.one("queue"))
    return Answer(value={"cleared": cleared.total, "by_state": cleared}, done=cleared.total, to="/queues")


def _ask_clear(inspector: Inspector, given: Given) -> Question:
    name = given.one("queue")
    found = inspector.queue(name)
    number = 0 if found is None else found.stats.total - found.stats.processing
    more = " or more" if found is not None and found.stats.is_estimate else ""
    words = f"Delete {number:,}{more} jobs of this queue for good: those that wait, and those that have ended?"
    return Question(words=words, button="Clear the queue", typed=name)


def _run_schedule(inspector: Inspector, given: Given) -> Answer:
    job_id = inspector.run_schedule(given.one("id"))
    return Answer(value={"id": job_id}, to=f"/jobs/{job_id}")


def _pause_schedule(inspector: Inspector, given: Given) -> Answer:
    return _switched(inspector.pause_schedule(given.one("id")))


def _resume_schedule(inspector: Inspector, given: Given) -> Answer:
    return _switched(inspector.resume_schedule(given.one("id")))


def _start(inspector: Inspector, given: Given) -> Answer:
    operation = inspector.start(cast("Bulk", given.one("action")), _bulk_query(given), at=_at(given))
    return Answer(value=operation, to=f"/operations/{operation.id}")


def _ask_start(inspector: Inspector, given: Given) -> Question:
    action, query = given.one("action"), _bulk_query(given)
    if action not in _MET:
        raise OptionInvalid(f"There is no operation {shown(action, 40)}.", mend=f"Known: {', '.join(_MET)}.")
    found = inspector.preview(cast("Bulk", action), query)  # by the very search that will act
    whose = f"that match {query}" if query else "there are"
    return Question(
        words=f"{action.capitalize()} all {_number(found.total)} {_MET[action]} {whose}?",
        button=f"{action.capitalize()} all",
        seen={"at": found.at.isoformat()},
    )


def _at(given: Given) -> datetime | None:
    """When the person was asked: what has come since then was not meant."""
    if not (text := given.maybe("at")):
        return None
    try:
        at = datetime.fromisoformat(text)
        at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise OptionInvalid('"at" is no time.', mend="Write 2030-01-31T12:00:00+00:00.") from None
    if at.tzinfo is None:
        raise OptionInvalid('"at" has no offset.', mend="Write 2030-01-31T12:00:00+00:00.")
    return at


# what an operation meets, in words
_MET = {"retry": "failed jobs", "cancel": "jobs that wait or run", "forget": "failed jobs"}


def _bulk_query(given: Given) -> str:
    """The query that was shown; from the page of an error its fingerprint. All jobs are meant by an empty query, and
    not by none.
    """
    if "fingerprint" in given.fields:
        return f"fp:{quoted(given.one('fingerprint'))}"
    if "query" not in given.fields:
        raise OptionInvalid('"query" is missing.', mend='For all jobs write "query": "".')
    return given.maybe("query")


def _stop(inspector: Inspector, given: Given) -> Answer:
    operation_id = given.one("id")
    answer = _switched(inspector.stop_operation(operation_id))
    return Answer(value=answer.value, done=answer.done, refused=answer.refused, to=f"/operations/{operation_id}")


ACTIONS: tuple[Action, ...] = (
    Action(name="jobs/retry", past="queued again", perform=_retry),
    Action(name="jobs/cancel", past="cancelled, or told to stop", perform=_cancel),
    Action(name="jobs/forget", past="forgotten", perform=_forget, ask=_ask_forget),
    Action(
        name="jobs/edit",
        past="queued with the edited data; this is the new job",
        perform=_edit,
        again="edit.html",
    ),
    Action(name="queues/pause", past="paused", perform=_pause),
    Action(name="queues/resume", past="resumed", perform=_resume),
    Action(name="queues/clear", past="deleted", perform=_clear, ask=_ask_clear),
    Action(name="schedules/run", past="pushed; this is its job", perform=_run_schedule),
    Action(name="schedules/pause", past="paused", perform=_pause_schedule),
    Action(name="schedules/resume", past="resumed", perform=_resume_schedule),
    Action(name="operations/start", past="started", perform=_start, ask=_ask_start),
    Action(name="operations/stop", past="told to stop", perform=_stop),
)


_BY_NAME = {action.name: action for action in ACTIONS}


def notice(name: str, done: int, refused: int) -> str:
    """What an action did, in words; nothing for a name that is none. Of an address only numbers get into a page."""
    action = _BY_NAME.get(name)
    if action is None:
        return ""
    words = f"{done:,} {action.past}." if done != 1 or refused else f"{action.past[0].upper()}{action.past[1:]}."
    return words + (f" {refused:,} had changed meanwhile, or could not be." if refused else "")


def _each(ids: Sequence[str], answers: Sequence[object], done: int, *, to: str = "") -> Answer:
    value = {one: str(answer) for one, answer in zip(ids, answers, strict=True)}
    return Answer(value={"done": done, "answers": value}, done=done, refused=len(ids) - done, to=to)


def _switched(is_changed: bool) -> Answer:
    return Answer(value={"changed": is_changed}, done=int(is_changed), refused=int(not is_changed))


def _number(count: Count) -> str:
    return f"{count.number:,}{' or more' if count.is_capped else ''}"
