"""Inspector: what people see of a store and do to it. Command line, dashboard and JSON API all go through it.

The same verbs, the same filter language (`protojobs.querying`), and in one place what all of them owe: who may do it,
what is hidden from them, how much one call may cost, and the audit log of what was done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from protojobs.inspector.access import Role, Viewer
from protojobs.inspector.acting import Acting
from protojobs.inspector.bulk import Bulk
from protojobs.inspector.charts import Charts
from protojobs.inspector.looking import Looking
from protojobs.inspector.operations import Action, Operations
from protojobs.inspector.redaction import HIDDEN, Redaction
from protojobs.inspector.seen_schedule import SeenSchedule
from protojobs.inspector.system import System
from protojobs.inspector.views import (
    Count,
    ErrorGroup,
    ErrorPage,
    ForgetAnswer,
    JobListing,
    JobView,
    Moment,
    Operation,
    OperationState,
    Overview,
    Point,
    Preview,
    Rate,
    Series,
    SystemView,
    WorkerView,
)

if TYPE_CHECKING:
    from protojobs.queue.queue import JobQueue

__all__ = [
    "HIDDEN",
    "Action",
    "Count",
    "ErrorGroup",
    "ErrorPage",
    "ForgetAnswer",
    "Inspector",
    "JobListing",
    "JobView",
    "Moment",
    "Operation",
    "OperationState",
    "Overview",
    "Point",
    "Preview",
    "Rate",
    "Role",
    "SeenSchedule",
    "Series",
    "SystemView",
    "Viewer",
    "WorkerView",
]


class Inspector(Looking, Charts, System, Acting, Bulk):
    """One viewer's look at the store of a queue. Synchronous and thread-safe; opens nothing before its first use.

    `redact` names fields that are hidden in data and meta: `password` anywhere, `*.token` or `user.*.pin` by path.
    Every verb raises Forbidden for a viewer of role NONE, and those that act also for one of role READ.
    """

    def __init__(self, queue: JobQueue, viewer: Viewer = Viewer(name="cli"), *, redact: Sequence[str] = ()) -> None:  # noqa: B008  (frozen)
        super().__init__(queue, viewer, Redaction(redact), Operations(queue))

    def seen_by(self, viewer: Viewer) -> Inspector:
        """The same store, operations and redaction, for another person."""
        other = Inspector(self._queue, viewer)
        other._redaction, other._operations = self._redaction, self._operations
        return other
