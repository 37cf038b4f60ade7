"""Inspector: what people see of a store and do to it. Command line, dashboard and JSON API all go through it.

The same verbs, the same filter language (`protojobs.querying`), and in one place what all of them owe: who may do it,
what is hidden from them, how much one call may cost, and the audit log of what was done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from protojobs._inspecting.access import Role, Viewer
from protojobs._inspecting.acting import Acting
from protojobs._inspecting.bulk import Bulk
from protojobs._inspecting.charts import Charts
from protojobs._inspecting.looking import Looking
from protojobs._inspecting.operations import Action, Operations
from protojobs._inspecting.redaction import HIDDEN, Redaction
from protojobs._inspecting.seen_schedule import SeenSchedule
from protojobs._inspecting.system import System
from protojobs._inspecting.views import (
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
    from protojobs.queue import JobQueue

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
