"""Inspector: see a store and act on it, for people, with rights, redaction and an audit log."""

from __future__ import annotations

from protojobs.inspector.access import Role, Viewer
from protojobs.inspector.inspector import Inspector
from protojobs.inspector.operations import Action
from protojobs.inspector.redaction import HIDDEN
from protojobs.inspector.seen_schedule import SeenSchedule
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

__all__ = [
    "Action",
    "Count",
    "ErrorGroup",
    "ErrorPage",
    "ForgetAnswer",
    "HIDDEN",
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
