"""`--fail-if 'oldest>5m'`: the thresholds of `protojobs status`, for cron, Nagios and deployment gates.

[queue:NAME] WORD OPERATOR VALUE. Without a queue the word is about all queues together. A name with spaces is quoted:
'queue:"my queue" ready>1000'.
"""

from __future__ import annotations

import operator
import re
import shlex
from collections.abc import Callable

import click
import msgspec

from protojobs.cli.option_types import duration
from protojobs.cli.showing.snapshot import COUNTED, Load, Snapshot
from protojobs.cli.showing.text import length
from protojobs.errors import did_you_mean

__all__ = ["WORDS", "Threshold", "counted_for", "threshold"]

WORDS = {  # -> how a value is shown
    "ready": "{} ready",
    "running": "{} running",
    "scheduled": "{} scheduled",
    "failed": "{} failed",
    "oldest": "the oldest ready job has waited for {}",
    "workers": "{} alive",
    "slots": "{} in all",
}
_TERM = re.compile(r"([a-z_]+)\s*(<=|>=|<|>|=)\s*(\S+)", re.IGNORECASE)
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, "=": operator.eq, ">=": operator.ge, ">": operator.gt,
}  # fmt: skip
_EXAMPLES = "Write it like 'oldest>5m', 'workers<1' or 'queue:emails ready>=1000'."


class Threshold(msgspec.Struct, frozen=True, kw_only=True):
    """A condition under which the command fails."""

    text: str
    queue: str | None
    word: str
    operator: str
    value: float

    def crossed(self, seen: Snapshot) -> str:
        """Why it is crossed, for people; empty where it is not."""
        load = seen.total if self.queue is None else _of_queue(seen, self.queue)
        value = (load.oldest_s or 0.0) if self.word == "oldest" else float(getattr(load, self.word))
        if not _COMPARE[self.operator](value, self.value):
            return ""
        shown = length(value) if self.word == "oldest" else f"{value:,.0f}"
        more = " or more" if load.is_estimate and self.word in ("ready", "running", "scheduled") else ""
        return f"{self.text}: {WORDS[self.word].format(shown + more)}"


def threshold(text: str) -> Threshold:
    """The `type=` of the option. Raises click.BadParameter."""
    try:
        terms = shlex.split(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} cannot be read: {error}. {_EXAMPLES}") from None
    queues = [term.removeprefix("queue:") for term in terms if term.startswith("queue:")]
    match = _TERM.fullmatch(" ".join(term for term in terms if not term.startswith("queue:")))
    if match is None or len(queues) > 1 or queues == [""]:
        raise click.BadParameter(f"{text!r} is no threshold. {_EXAMPLES}")
    word, sign, value = match[1].lower(), match[2], match[3]
    if word not in WORDS:
        meant = did_you_mean(word, WORDS) or f"There are: {', '.join(WORDS)}."
        raise click.BadParameter(f'{text!r}: there is no "{word}". {meant}')
    return Threshold(
        text=text, queue=queues[0] if queues else None, word=word, operator=sign, value=_value(text, word, value)
    )


def counted_for(thresholds: tuple[Threshold, ...]) -> int:
    """How many waiting jobs must be counted so that these can be decided."""
    counts = [one.value for one in thresholds if one.word in ("ready", "running", "scheduled")]
    return int(max([float(COUNTED), *(count + 1 for count in counts)]))


def _value(text: str, word: str, value: str) -> float:
    if word == "oldest":
        return duration(value)
    try:
        number = float(value.replace("_", "").replace(",", ""))
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e15:
        raise click.BadParameter(f'{text!r}: "{value}" is no number of {word}. {_EXAMPLES}')
    return number


def _of_queue(seen: Snapshot, name: str) -> Load:
    load = next((load for load in seen.queues if load.queue == name), None)
    if load is not None:
        return load
    serving = [worker for worker in seen.workers if worker.serves(name)]
    return msgspec.structs.replace(
        seen.total, queue=name, ready=0, running=0, scheduled=0, completed=0, failed=0, oldest_s=None,
        is_estimate=False, workers=len(serving), slots=sum(worker.concurrency for worker in serving),
    )  # fmt: skip
