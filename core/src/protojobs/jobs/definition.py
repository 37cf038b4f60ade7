"""What push and workers know of a kind of job (JobDefinition), and the Registry in which they find it by its name.

A worker resolves the names that it finds in the store here. It never imports anything because of a name from the store.
"""

from __future__ import annotations

import copy
import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Protocol, cast

import msgspec

from protojobs.errors import DataInvalid, JobUnknown, OptionInvalid, did_you_mean, one_line, shown
from protojobs.jobs.context import JobContext
from protojobs.jobs.cron_option import Cron, check_schedule
from protojobs.jobs.options import (
    JobOptions,
    Where,
    check_exclusive,
    check_executor,
    check_soft_timeout,
    check_store_result,
    exception_types,
)
from protojobs.jobs.resources import DECLARED, Resource
from protojobs.jobs.returns import Discard, Retry, Snooze
from protojobs.names import check_name, check_seconds

__all__ = ["REGISTRY", "JobClass", "JobDefinition", "Registry", "name_of"]


class JobClass(Protocol):
    """What a definition asks of a job that is a class. `Job` is one."""

    retry_on: ClassVar[tuple[type[BaseException], ...]]
    discard_on: ClassVar[tuple[type[BaseException], ...]]
    executor: ClassVar[Where | None]
    exclusive: ClassVar[bool]
    soft_timeout: ClassVar[float | timedelta | None]
    store_result: ClassVar[bool]
    cron: ClassVar[str | Cron | None]

    def handle(self, data: object, *args: Any, **kwargs: Any) -> object:  # noqa: ANN401  (as Job has it)
        """The work."""
        ...

    def failed(self, exception: BaseException, data: object) -> object:
        """What is to be done once the job is given up."""
        ...

    def retry_in(self, attempt: int, exception: BaseException) -> float | timedelta | None:
        """Seconds until the next attempt."""
        ...


class JobDefinition:
    """All that push and workers need to know of one kind of job. Found in the registry by its name."""

    def __init__(
        self,
        name: str,
        source: type[JobClass] | Callable[..., object],
        options: JobOptions,
        *,
        declared: object = None,
        has_failed: bool = False,
    ) -> None:
        self.name = check_name("job name", name)
        self.options = options
        self.has_failed = has_failed  # whether the job wants to know of its end
        self._declared = declared  # the T of Job[T]
        self.module = source.__module__
        self.executor: Where | None = None  # of this worker's settings
        self.exclusive = False  # whether a run is ended before the job could be lent to somebody else
        self.soft_timeout = 0.0  # seconds after which JobTimeout is raised in the run; 0 = none
        self.store_result = False  # whether what it returns is kept with the job
        self.cron: Cron | None = None  # the schedule that it carries with it
        self.job_class = _place_of(source)
        self.retry_on: tuple[type[BaseException], ...] = ()
        self.discard_on: tuple[type[BaseException], ...] = ()
        self._type = cast("type[JobClass]", source) if isinstance(source, type) else None
        self._function = source
        if self._type is not None:
            self.retry_on = exception_types("retry_on", self._type.retry_on)
            self.discard_on = exception_types("discard_on", self._type.discard_on)
            self.executor = check_executor(self._type.executor)
            self.exclusive = check_exclusive(self._type.exclusive)
            self.soft_timeout = check_soft_timeout(self._type.soft_timeout, options.timeout)
            self.store_result = check_store_result(self._type.store_result)
            self.cron = check_schedule(self._type.cron)

    @property
    def is_importable(self) -> bool:
        """Whether a child process may find it by importing its module. The program's own script is not imported again:
        that would run it once more in each child.
        """
        module = sys.modules.get(self.module)
        has_spec = getattr(module, "__spec__", None) is not None
        return self.module != "__main__" and has_spec and "<locals>" not in self._function.__qualname__

    @property
    def _code(self) -> Callable[..., object]:
        # To be looked at only, so that an `__init__` which fails is the run's trouble, not the worker's.
        return self._function if self._type is None else self._type.handle

    @cached_property
    def is_async(self) -> bool:
        """Whether the job runs on the worker's event loop."""
        return inspect.iscoroutinefunction(self._code)

    @cached_property
    def _hints(self) -> dict[str, object]:
        # What it returns is nobody's business here.
        return self._read_hints(lambda name: name != "return")

    @cached_property
    def result_type(self) -> object:
        """What it says that it returns, beside Snooze, Retry and Discard; None where that is any JSON value."""
        hint = self._read_hints(lambda name: name == "return").get("return")
        parts = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else (hint,)
        kept = tuple(part for part in parts if part not in (Snooze, Retry, Discard))
        return _typed(hint if len(kept) == len(parts) else typing.Union[kept] if kept else None)  # noqa: UP007

    def _read_hints(self, is_wanted: Callable[[str], bool]) -> dict[str, object]:
        # Read late, on first use, when the names that they speak of exist.
        code = inspect.unwrap(self._code)
        wanted = {name: hint for name, hint in code.__annotations__.items() if is_wanted(name)}
        carrier = type(self.name, (), {"__annotations__": wanted})
        try:
            return typing.get_type_hints(carrier, getattr(code, "__globals__", {}), include_extras=True)
        except (NameError, AttributeError, TypeError, SyntaxError) as error:
            raise OptionInvalid(
                f'job "{self.name}": its annotations cannot be read: {error}.',
                mend="Import what they speak of at the top of the module, not under `if TYPE_CHECKING:`.",
            ) from error

    @cached_property
    def context_parameter(self) -> str | None:
        """The name of the parameter that wants the JobContext, if there is one."""
        return next((name for name, hint in self._hints.items() if _is_context(hint)), None)

    @cached_property
    def data_type(self) -> object:
        """The declared type of the data: of `Job[T]` or the `data` parameter; for a function, a Struct of its own."""
        if self._type is None:
            return _parameters_struct(self._function, self._hints)
        if self._declared is not None:
            return _typed(self._declared)
        is_bare = isinstance(inspect.getattr_static(self._type, "handle"), staticmethod | classmethod)
        parameters = [name for name in inspect.signature(self._code).parameters if name != self.context_parameter]
        own = parameters if is_bare else parameters[1:]  # without `self`
        return _typed(self._hints.get(own[0])) if own else None

    @cached_property
    def _signature(self) -> inspect.Signature:
        whole = inspect.signature(self._function)
        named = {name: parameter for name, parameter in whole.parameters.items() if name != self.context_parameter}
        return whole.replace(parameters=list(named.values()))  # the context comes from the worker

    @cached_property
    def _parameters(self) -> tuple[tuple[str, ...], frozenset[str], frozenset[str]]:
        """The names of a function's parameters: those that may be given by position, those that must be, and all."""
        parameters = self._signature.parameters
        positional = tuple(name for name, one in parameters.items() if one.kind is one.POSITIONAL_OR_KEYWORD)
        required = frozenset(name for name, one in parameters.items() if one.default is one.empty)
        return positional, required, frozenset(parameters)

    def arguments(self, args: Sequence[object], kwargs: Mapping[str, object]) -> dict[str, object]:
        """What a call of the function would give to its parameters, by name. Raises DataInvalid if they do not fit."""
        positional, required, names = self._parameters
        by_name = dict(zip(positional, args, strict=False), **kwargs)
        if len(by_name) == len(args) + len(kwargs) and required <= by_name.keys() <= names:
            return by_name
        try:
            return self._signature.bind(*args, **kwargs).arguments  # a hundred times as dear, and says what is wrong
        except TypeError as error:
            raise DataInvalid(f'job "{self.name}": {error}.') from None

    def check_arguments(self, data: object) -> None:
        """Refuse one value where a function wants its arguments by name, and say how they are given."""
        value = data
        if self._type is None and isinstance(data, str | bytes | int | float | list | tuple | set | frozenset):
            first = next(iter(self._parameters[0]), "")
            raise DataInvalid(
                f'job "{self.name}" takes its arguments by name, and got {shown(value)}.',
                mend=f'Bind them: push({self._function.__name__}.bind(...)). Or name each: {{"{first}": ...}}.'
                if first
                else "It has none: push it without data.",
            )

    def call(self, data: object, context: JobContext | None) -> object:
        """Run the job's own code; one that wants no context need not be given one. Of an async job: its coroutine."""
        extra = {self.context_parameter: context} if self.context_parameter else {}
        if self._type is not None:
            # A fresh instance for each run: what a run leaves on `self` must not reach the next one, or its neighbour.
            return self._type().handle(data, **extra)
        assert isinstance(data, msgspec.Struct)  # of its parameters, which `data_type` made
        return self._function(**msgspec.structs.asdict(data), **extra)

    def failed(self, exception: BaseException, data: object) -> object:
        """Run the job's own `failed`, if it has one."""
        return None if self._type is None else self._type().failed(exception, data)

    @property
    def failed_is_async(self) -> bool:
        """Whether its `failed` is a coroutine function."""
        return self._type is not None and inspect.iscoroutinefunction(self._type.failed)

    def retry_in(self, attempt: int, exception: BaseException) -> float | None:
        """The job's own opinion on when to try again, in seconds; None leaves it to the policy."""
        own = None if self._type is None else self._type().retry_in(attempt, exception)
        return None if own is None else check_seconds("retry_in", own)


class Registry:
    """The jobs that this process knows, by name and alias; and the resources that are opened for them, by name."""

    def __init__(self, resources: dict[str, Resource[object]] | None = None) -> None:
        self._by_name: dict[str, JobDefinition] = {}
        self.resources = {} if resources is None else resources

    def add(self, definition: JobDefinition, aliases: Sequence[str] = ()) -> None:
        """Make a job known. The same class again replaces it (a reload); another class of that name is an error."""
        for name in (definition.name, *(check_name("alias", alias) for alias in aliases)):
            before = self._by_name.get(name)
            if before is not None and before.job_class != definition.job_class:
                raise OptionInvalid(
                    f'Two jobs are called "{name}": {before.job_class} and {definition.job_class}.',
                    mend="Give one of them another name.",
                )
            self._by_name[name] = definition

    def find(self, name: str) -> JobDefinition | None:
        """The job of that name, or None."""
        return self._by_name.get(name)

    def get(self, name: str) -> JobDefinition:
        """The job of that name. Raises JobUnknown with the closest name."""
        if (definition := self._by_name.get(name)) is None:
            mend = did_you_mean(name, self._by_name) or "Import the module that defines it, or name it with --app."
            raise JobUnknown(f'No job is called "{one_line(name)}" in this process.', mend=mend)
        return definition

    def crons(self) -> list[tuple[str, Cron]]:
        """The jobs that carry a schedule with them, by name."""
        by_name = sorted(self._by_name.items())
        return [(name, job.cron) for name, job in by_name if job.cron is not None and name == job.name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._by_name))


REGISTRY = Registry(DECLARED)


def _is_context(hint: object) -> bool:
    """`JobContext`, or `JobContext | None` as a function says it that is called elsewhere too."""
    parts = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else (hint,)
    return JobContext in parts and all(part in (JobContext, type(None)) for part in parts)


def _typed(hint: object) -> object:
    """The hint where it says more than "some JSON", else None."""
    plain = (None, typing.Any, object, dict, inspect.Parameter.empty)
    is_plain_dict = typing.get_origin(hint) is dict and typing.get_args(hint)[1] in (typing.Any, object)
    return None if hint in plain or isinstance(hint, typing.TypeVar) or is_plain_dict else hint


def _parameters_struct(function: Callable[..., object], hints: Mapping[str, object]) -> type[msgspec.Struct]:
    """A Struct with the function's parameters as fields: the type of a function job's data."""
    fields: list[tuple[str, object] | tuple[str, object, object]] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if _is_context(hints.get(name)):
            continue
        hint = hints.get(name, typing.Any)
        if parameter.default is parameter.empty:
            fields.append((name, hint))
        else:  # by a factory: msgspec refuses lists and the like that are not empty
            fields.append((name, hint, msgspec.field(default_factory=partial(copy.deepcopy, parameter.default))))
    return msgspec.defstruct(
        f"{function.__name__}_data", cast("list[tuple[str, type]]", fields), kw_only=True, forbid_unknown_fields=True
    )


def name_of(source: type[JobClass] | Callable[..., object], given: str | None, *, is_runnable: bool = True) -> str:
    """The name of a job: the one that it was given, else the place where it is defined, if a worker can import that."""
    if given is not None:
        return given
    place = _place_of(source)
    if is_runnable and "<" in source.__qualname__:  # <lambda>, or <locals> of a function
        raise OptionInvalid(
            f"{place} cannot name a job: no worker can import what is defined inside a function.",
            mend='Define it at the top of its module. Or, as in a test that works it too, give it a name: name="...".',
        )
    return place


def _place_of(source: type[JobClass] | Callable[..., object]) -> str:
    """Where a class or function is defined: `shop.jobs.SendMail`."""
    return f"{_module_name(source.__module__)}.{source.__qualname__}"


def _module_name(module: str) -> str:
    """The module's name as another process would import it: never `__main__`."""
    if module != "__main__":
        return module
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return cast("str", spec.name).removesuffix(".__main__")
    path = getattr(main, "__file__", None)
    return Path(path).stem if path else "interactive"
