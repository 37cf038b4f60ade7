"""Jobs as users write them: a class with `handle`, or a function under `@job`; and what `push` accepts as a job.

Defining a job registers it under its name, and that is all that happens at import.
"""

from __future__ import annotations

import copy
import typing
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from functools import update_wrapper
from typing import TYPE_CHECKING, ClassVar, Concatenate, Generic, ParamSpec, Protocol, cast, overload

from protojobs.errors import OptionInvalid, shown
from protojobs.jobs.backoff import Backoff
from protojobs.jobs.checks import check_function, check_handle
from protojobs.jobs.context import JobContext
from protojobs.jobs.cron_option import Cron, check_schedule
from protojobs.jobs.definition import REGISTRY, JobDefinition, Registry, name_of
from protojobs.jobs.options import (
    OPTIONS,
    Fluent,
    JobOptions,
    Where,
    changed_options,
    check_exclusive,
    check_executor,
    check_soft_timeout,
    check_store_result,
    checked_options,
    exception_types,
    options_of,
)

if TYPE_CHECKING:
    from typing import Self

    from typing_extensions import TypeVar

    D = TypeVar("D", default=typing.Any)
    R = TypeVar("R", default=typing.Any, covariant=True)
else:  # the defaults are for type checkers; importing typing_extensions costs a fifth of our import time
    from typing import TypeVar

    D = TypeVar("D")
    R = TypeVar("R", covariant=True)
P = ParamSpec("P")
T = typing.TypeVar("T")
# How jobs are pushed with Celery, Dramatiq, Procrastinate, Huey and RQ.
_ELSEWHERE = frozenset({"delay", "apply_async", "send", "send_with_options", "defer", "schedule", "enqueue", "s", "si"})

__all__ = ["BoundJob", "FunctionJob", "Job", "as_bound", "job"]


class Job(Fluent, Generic[D]):
    """A kind of job: subclass it and write `handle`. With `Job[Data]` the data is checked against `Data` at push.

    Attributes left alone take the queue's configured default. `max_retries` counts the runs after the first;
    `retry_delay` and `timeout` are seconds (0 = no limit); `priority` goes from -100 to 100, higher first. `name` is
    the key by which workers find the class (None, or left out: module and qualified name), `aliases` its former names.
    """

    name: ClassVar[str] = ""
    aliases: ClassVar[Sequence[str]] = ()
    queue: str | None = None
    max_retries: int | None = None
    retry_delay: float | timedelta | None = None
    backoff: Backoff | Sequence[float | timedelta] | None = None
    """How retries spread: a Backoff, or a list of delays. None doubles `retry_delay` each time."""
    timeout: float | timedelta | None = None
    priority: int = 0
    retry_on: ClassVar[tuple[type[BaseException], ...]] = ()
    """If set, only these exceptions are tried again; others fail the job at once."""
    discard_on: ClassVar[tuple[type[BaseException], ...]] = ()
    """These exceptions end the job as cancelled."""
    executor: ClassVar[Where | None] = None
    """Where a plain `handle` runs: `thread`, or `process` for a child process. None takes the worker's setting."""
    exclusive: ClassVar[bool] = False
    """Whether a run is ended while its worker cannot reach the store, before another worker could have the job."""
    soft_timeout: ClassVar[float | timedelta | None] = None
    """Seconds after which JobTimeout is raised in the run, so that it cleans up before its `timeout` ends it."""
    store_result: ClassVar[bool] = False
    """Whether what `handle` returns is kept with the job, for `queue.result` and `queue.wait`: as JSON by its return
    annotation, at most 64 KiB, and as long as the job itself."""
    cron: ClassVar[str | Cron | None] = None
    """When it runs by itself, with `{}` as data: a cron expression, or a `Cron` with a zone and other options."""

    definition: ClassVar[JobDefinition]

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        own = cast("type[Job[object]]", cls)
        is_runnable = cls.handle is not Job.handle  # an abstract base in between is nothing to run
        name = name_of(own, cls.__dict__.get("name"), is_runnable=is_runnable)
        has_failed = cls.failed is not Job.failed
        cls.definition = JobDefinition(name, own, options_of(cls), declared=_declared(own), has_failed=has_failed)
        if is_runnable:
            check_handle(own)
            REGISTRY.add(cls.definition, cls.__dict__.get("aliases", ()))

    # The Anys let type checkers accept `handle(self, data, ctx: JobContext)`, whatever the parameter is called.
    def handle(self, data: D, *args: typing.Any, **kwargs: typing.Any) -> object:  # noqa: ANN401
        """Do the work. What it returns is the result, unless it is a Snooze, Retry or Discard. May be `async`.

        A second parameter annotated `JobContext`, under any name, gets the context of the run.
        """
        raise NotImplementedError(f"{type(self).__name__} has no handle(data)")

    def failed(self, exception: BaseException, data: D) -> object:
        """Called at most once, after the last attempt. Its own errors are logged and change nothing."""
        return None

    def retry_in(self, attempt: int, exception: BaseException) -> float | timedelta | None:
        """Seconds until the next attempt after `attempt` failed; None leaves it to `backoff` and `retry_delay`."""
        return None

    @classmethod
    def bind(cls, data: D) -> BoundJob:
        """This job with its data, for `push` and `push_many`."""
        return BoundJob(cls.definition, options_of(cls), data)

    def __repr__(self) -> str:
        return f"<{type(self).__qualname__} {vars(self) or 'job'}>"

    def _with(self, **option: object) -> Self:
        checked_options(**option)
        changed = copy.copy(self)
        vars(changed).update(option)
        return changed


class BoundJob(Fluent, Generic[R]):
    """A job together with its data and options, ready to be pushed."""

    __slots__ = ("data", "definition", "options")

    def __init__(self, definition: JobDefinition, options: JobOptions, data: object) -> None:
        self.definition = definition
        self.options = options
        self.data = data

    def __repr__(self) -> str:
        return f"<BoundJob {self.definition.name} {self.data!r}>"

    def _with(self, **option: object) -> Self:
        return type(self)(self.definition, changed_options(self.options, **option), self.data)


class FunctionJob(Fluent, Generic[P, R]):
    """A function under `@job`: call it and it runs here and now; `bind` its arguments to push it."""

    def __init__(self, function: Callable[P, R], definition: JobDefinition, options: JobOptions) -> None:
        update_wrapper(self, function)
        self.definition = definition
        self.options = options
        self._function = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function, here and now."""
        return self._function(*args, **kwargs)

    @overload
    def bind(self: FunctionJob[P, Coroutine[object, object, T]], *args: P.args, **kwargs: P.kwargs) -> BoundJob[T]: ...
    @overload
    def bind(self, *args: P.args, **kwargs: P.kwargs) -> BoundJob[R]: ...
    def bind(self, *args: P.args, **kwargs: P.kwargs) -> BoundJob[object]:
        """This job with its arguments, for `push`. Raises DataInvalid when they do not fit the signature."""
        return BoundJob(self.definition, self.options, self.definition.arguments(args, kwargs))

    if not TYPE_CHECKING:  # to a type checker what is not there stays an error

        def __getattr__(self, name: str) -> object:
            """Only what is not there is asked for here: say how a job is pushed, if that is what was meant."""
            if name in _ELSEWHERE:
                raise AttributeError(
                    f"A job has no {name}(): push it to a queue: queue.push({self.__name__}.bind(...)),"
                    f" or queue.later(60, {self.__name__}.bind(...)). To run it here and now, call it."
                )
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _with(self, **option: object) -> Self:
        return type(self)(self._function, self.definition, changed_options(self.options, **option))


class ContextJob(FunctionJob[P, R]):
    """For type checkers, a function job whose first parameter is the JobContext: `bind` takes the others."""

    if TYPE_CHECKING:

        def __call__(self, context: JobContext, /, *args: P.args, **kwargs: P.kwargs) -> R:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
            """Run the function, here and now."""
            ...


class Decorator(Protocol):
    """`@job(...)` with its options."""

    # Of a first parameter without a type, or with `object`, it cannot be told whether it is the context.
    @overload
    def __call__(self, function: Callable[Concatenate[object, P], T], /) -> FunctionJob[..., T]: ...  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]
    @overload
    def __call__(self, function: Callable[Concatenate[JobContext, P], T], /) -> ContextJob[P, T]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> FunctionJob[P, T]: ...


@overload
def job(function: Callable[Concatenate[object, P], T], /) -> FunctionJob[..., T]: ...  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]
@overload
def job(function: Callable[Concatenate[JobContext, P], T], /) -> ContextJob[P, T]: ...
@overload
def job(function: Callable[P, T], /) -> FunctionJob[P, T]: ...
@overload
def job(
    *,
    name: str | None = None,
    aliases: Sequence[str] = (),
    queue: str | None = None,
    max_retries: int | None = None,
    retry_delay: float | timedelta | None = None,
    backoff: Backoff | Sequence[float | timedelta] | None = None,
    timeout: float | timedelta | None = None,
    priority: int = 0,
    retry_on: tuple[type[BaseException], ...] = (),
    discard_on: tuple[type[BaseException], ...] = (),
    executor: Where | None = None,
    exclusive: bool = False,
    soft_timeout: float | timedelta | None = None,
    store_result: bool = False,
    cron: str | Cron | None = None,
) -> Decorator: ...
def job(  # noqa: PLR0913  (the options of a job, all by keyword)
    function: Callable[..., object] | None = None,
    /,
    *,
    name: str | None = None,
    aliases: Sequence[str] = (),
    retry_on: tuple[type[BaseException], ...] = (),
    discard_on: tuple[type[BaseException], ...] = (),
    executor: Where | None = None,
    exclusive: bool = False,
    soft_timeout: float | timedelta | None = None,
    store_result: bool = False,
    cron: str | Cron | None = None,
    **options: object,
) -> object:
    """Make a function a job: `@job` or `@job(queue="math", max_retries=5)`. It stays an ordinary function.

    Options as on `Job`. Its arguments are checked against their annotations at push; `*args`, `**kwargs` and
    positional-only parameters are refused, since data travels by name.
    """
    checked = checked_options(**options)

    def decorate(function: Callable[P, T]) -> FunctionJob[P, T]:
        check_function(function)
        definition = JobDefinition(name_of(function, name), function, checked)
        definition.retry_on = exception_types("retry_on", retry_on)
        definition.discard_on = exception_types("discard_on", discard_on)
        definition.executor = check_executor(executor)
        definition.exclusive = check_exclusive(exclusive)
        definition.soft_timeout = check_soft_timeout(soft_timeout, checked.timeout)
        definition.store_result = check_store_result(store_result)
        definition.cron = check_schedule(cron)
        REGISTRY.add(definition, aliases)
        return FunctionJob(function, definition, checked)

    return decorate if function is None else decorate(function)


def as_bound(what: object, data: object, registry: Registry) -> BoundJob:
    """Whatever `push` accepts as a job: an instance, a class, a function job, a bound job, or a registered name."""
    if isinstance(what, BoundJob):
        if data is not None:
            raise OptionInvalid("This job has its data bound already.", mend="Push it without further data.")
        return cast("BoundJob[object]", what)
    return _bound(what, {} if data is None else data, registry)


def _bound(what: object, data: object, registry: Registry) -> BoundJob:
    if isinstance(what, str):
        definition = registry.get(what)
        definition.check_arguments(data)
        return BoundJob(definition, definition.options, data)
    if isinstance(what, FunctionJob):
        what.definition.check_arguments(data)
        return BoundJob(what.definition, what.options, data)
    if isinstance(what, Job):
        instance = cast("Job[object]", what)
        if extra := set(vars(instance)) - set(OPTIONS):
            raise OptionInvalid(
                f"{type(instance).__name__} has attributes that do not travel: {', '.join(sorted(extra))}.",
                mend="Put what the run needs into data.",
            )
        return BoundJob(_runnable(type(instance)), options_of(instance), data)
    if isinstance(what, type) and issubclass(what, Job):
        cls = cast("type[Job[object]]", what)
        return BoundJob(_runnable(cls), options_of(cls), data)
    raise _no_job(what)  # pyright: ignore[reportUnknownArgumentType]  (that is the question)


def _no_job(what: object) -> OptionInvalid:
    text = shown(what)
    called = "Did you call the function? Write push(my_job.bind(1)), not push(my_job(1))."
    mend = f"Push a Job class or instance, a function under @job, or a registered name. {called}"
    if isinstance(what, int | float | timedelta):
        mend = f"{called} In later() the delay comes first: later(60, job, data)."
    if isinstance(what, Coroutine):
        cast("Coroutine[object, object, object]", what).close()  # else Python warns that it was never awaited
        mend = called
    elif callable(what):
        mend = "Push a Job class or instance, a function under @job, or a registered name."
    return OptionInvalid(f"{text} is not a job.", mend=mend)


def _declared(cls: type[Job[object]]) -> object:
    """The T of the nearest `Job[T]` among the bases, or None."""
    for base in (b for ancestor in cls.__mro__ for b in ancestor.__dict__.get("__orig_bases__", ())):
        if typing.get_origin(base) is Job and not isinstance(typing.get_args(base)[0], typing.TypeVar):
            return typing.get_args(base)[0]
    return None


def _runnable(cls: type[Job[object]]) -> JobDefinition:
    if cls.handle is Job.handle:
        raise OptionInvalid(f"{cls.__name__} has no handle(data).", mend="Write one, or push a subclass that has it.")
    return cls.definition
