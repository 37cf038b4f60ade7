"""What a call may ask for at once. Checked before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence, Sized

from protojobs.errors import OptionInvalid, shown
from protojobs.port.lifecycle import Verb
from protojobs.port.records import BATCH_BYTES_MAX, BATCH_JOBS_MAX, NewJob, Settlement
from protojobs_sqlalchemy.tables.ids import canonical
from protojobs_sqlalchemy.tables.tables import JOB_CLASS_MAX

__all__ = ["bad_cursor", "check_count", "check_names", "check_new", "check_settlements", "payload_bytes"]

_SETTLING = frozenset({Verb.COMPLETE, Verb.RETRY, Verb.FAIL, Verb.SNOOZE, Verb.RELEASE, Verb.CANCEL})


def check_count(batch: Sized) -> None:
    """Refuse more than BATCH_JOBS_MAX of whatever is asked for."""
    if len(batch) > BATCH_JOBS_MAX:
        raise OptionInvalid(f"{len(batch)} at once are too many.", mend=f"Send at most {BATCH_JOBS_MAX}.")


def check_names(*names: str | None) -> None:
    """Refuse a name with what some database cannot keep. Nothing there has such a one, and it cannot be asked for."""
    for name in names:
        if name is not None and ("\x00" in name or name.encode(errors="replace").decode() != name):
            raise OptionInvalid(
                f"{shown(name, 60)} is no name: it holds a NUL character or half of a surrogate pair.",
                mend="Leave that character out.",
            )


def check_new(jobs: Sequence[NewJob]) -> None:
    """Refuse too many jobs, too large ones, and what a column would cut."""
    check_count(jobs)
    size = sum(payload_bytes(job.data) for job in jobs)
    if size > BATCH_BYTES_MAX:
        raise OptionInvalid(f"{size} payload bytes are too many.", mend=f"Send at most {BATCH_BYTES_MAX} at once.")
    for job in jobs:
        if not canonical(job.id):
            raise OptionInvalid(
                f"{shown(job.id, 60)} is no UUID in lower case.", mend="Leave id= out, or use fresh_id()."
            )
        if len(job.job_class) > JOB_CLASS_MAX:
            raise OptionInvalid(f"job_class {shown(job.job_class, 40)} is longer than {JOB_CLASS_MAX} characters.")


def check_settlements(settlements: Sequence[Settlement]) -> None:
    """Refuse too many of them, and verbs that settle nothing."""
    check_count(settlements)
    for settlement in settlements:
        if settlement.verb not in _SETTLING:
            raise OptionInvalid(
                f"{shown(settlement.verb)} does not settle a claim.", mend="Use one of the six that do."
            )


def payload_bytes(data: str | bytes) -> int:
    """How many bytes the payload has in UTF-8."""
    return len(data) if data.isascii() or isinstance(data, bytes) else len(data.encode())


def bad_cursor(cursor: str) -> OptionInvalid:
    """The error for a cursor that no page has given."""
    return OptionInvalid(f"{shown(cursor, 60)} is not a cursor.", mend="Give the one of the page before, unchanged.")
