"""What `push` and its kin accept as a job and as its data, in types: a type checker sees a mistake before it runs.

They are for annotations only. At run time `as_bound` decides, and refuses what a type checker was not asked about.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Concatenate, Generic, Protocol, TypeAlias, TypeVar

from protojobs.jobs.definition import JobDefinition

if TYPE_CHECKING:
    from typing import Any, Never

    from _typeshed import DataclassInstance
    from msgspec import Struct

    from protojobs.jobs.job_class import BoundJob, FunctionJob, Job

__all__ = [
    "AnyJob",
    "DataOf",
    "Fields",
    "JobOf",
    "PushedData",
    "Ready",
    "ReadyOther",
    "Returned",
    "Returning",
    "ScheduledJob",
]

DataHandled = TypeVar("DataHandled", contravariant=True)
DataSolved = TypeVar("DataSolved")
Returned = TypeVar("Returned", covariant=True)  # what the job returns
PushedData = TypeVar("PushedData")  # the data type of the job that is pushed
# A TypedDict is none of these: a dict for it is compared with it key by key.
Fields = TypeVar(
    "Fields", bound="DataclassInstance | Struct"
)  # a data type for which a dict of its fields may be given


class Handles(Protocol[DataHandled]):
    """A job that is written as a class, by what its `handle` takes."""

    definition: ClassVar[JobDefinition]
    """As each Job has one: another class with a `handle` is no job."""

    @property
    def handle(self) -> Callable[Concatenate[DataHandled, ...], object]:
        """Its work."""
        ...


class WithoutArguments(Protocol[Returned]):
    """A function job that can be called without arguments."""

    def bind(self) -> BoundJob[Returned]:
        """It with no data."""
        ...


class SolvedSecond(Generic[DataSolved]):
    """Of this nothing is ever made. See DataOf."""


JobOf: TypeAlias = "type[Job[PushedData]] | Job[PushedData]"
# mypy looks at a dict before it knows the type that is wanted, and then takes it for no TypedDict. An argument whose
# type has a callable in it is looked at last, when the job has told the type. So there is one, which nobody can give.
DataOf: TypeAlias = "PushedData | SolvedSecond[Callable[[], PushedData]]"
# A job whose result type is known.
Returning: TypeAlias = "BoundJob[Returned] | WithoutArguments[Returned]"
# A job that can be pushed without data: it gets {}. `dict[str, Any]` fits a `handle` that takes any kind of dict.
ReadyOther: TypeAlias = "type[Handles[dict[str, Any]]] | Handles[dict[str, Any]] | str"
Ready: TypeAlias = "Returning[object] | ReadyOther"
# Whatever can be given data. Every `handle` takes Never.
AnyJob: TypeAlias = "type[Handles[Never]] | Handles[Never] | FunctionJob[..., object] | str"
ScheduledJob: TypeAlias = "type[Job[PushedData]] | Job[PushedData] | FunctionJob[..., object] | BoundJob | str"
