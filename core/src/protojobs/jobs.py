"""Jobs as users write them: a class with `handle`, or a function under `@job`; their options and their names.

Defining a job registers it under its name in `REGISTRY`, and that is all that happens at import. A worker resolves the
names that it finds in the store there. It never imports anything because of a name from the store.
"""

from __future__ import annotations

import copy
import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import cached_property, partial, update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic, ParamSpec, cast, overload

import msgspec

from protojobs.backoff import Backoff
from protojobs.context import JobContext
from protojobs.errors import DataInvalid, JobUnknown, OptionInvalid, did_you_mean
from protojobs.names import check_name, check_seconds
from protojobs.options import OPTIONS, Fluent, JobOptions, changed_options, checked_options, exception_types, options_of

if TYPE_CHECKING:
    from typing import Self

    from typing_extensions import TypeVar

    D = TypeVar("D", default=typing.Any)
    R = TypeVar("R", default=typing.Any)
else:  # the defaults are for type checkers; importing typing_extensions costs a fifth of our import time
    from typing import TypeVar

    D = TypeVar("D")
    R = TypeVar("R")
P = ParamSpec("P")

__all__ = ["REGISTRY", "BoundJob", "FunctionJob", "Job", "JobDefinition", "Registry", "as_bound", "job"]


class JobDefinition:
    """All that push and workers need to know of one kind of job. Found in the registry by its name."""

    def __init__(self, name: str, source: type[Job[object]] | Callable[..., object], options: JobOptions) -> None:
        self.name = check_name("job name", name)
        self.options = options
        self.job_class = f"{_module_name(source.__module__)}.{source.__qualname__}"
        self.retry_on: tuple[type[BaseException], ...] = ()
        self.discard_on: tuple[type[BaseException], ...] = ()
        self._type = cast("type[Job[object]]", source) if isinstance(source, type) else None
        self._function = source
        if self._type is not None:
            self.retry_on = exception_types("retry_on", self._type.retry_on)
            self.discard_on = exception_types("discard_on", self._type.discard_on)

    @property
    def _body(self) -> Callable[..., object]:
        # A fresh instance for each run: what a run leaves on `self` must not reach the next one, or its neighbour.
        return self._function if self._type is None else self._type().handle

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
        # Read late, on first use, when the names that they speak of exist. What it returns is nobody's business here.
        code = inspect.unwrap(self._code)
        parameters = {name: hint for name, hint in code.__annotations__.items() if name != "return"}
        carrier = type(self.name, (), {"__annotations__": parameters})
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
        return next((name for name, hint in self._hints.items() if hint is JobContext), None)

    @cached_property
    def data_type(self) -> object:
        """The declared type of the data: of `Job[T]` or the `data` parameter; for a function, a Struct of its own."""
        if self._type is None:
            return _parameters_struct(self._function, self._hints)
        for base in (b for cls in self._type.__mro__ for b in cls.__dict__.get("__orig_bases__", ())):
            if typing.get_origin(base) is Job and not isinstance(typing.get_args(base)[0], typing.TypeVar):
                return _typed(typing.get_args(base)[0])
        is_bare = isinstance(inspect.getattr_static(self._type, "handle"), staticmethod | classmethod)
        parameters = [name for name in inspect.signature(self._code).parameters if name != self.context_parameter]
        own = parameters if is_bare else parameters[1:]  # without `self`
        return _typed(self._hints.get(own[0])) if own else None

    def call(self, data: object, context: JobContext) -> object:
        """Run the job's own code. For an async job the answer is its coroutine."""
        extra = {self.context_parameter: context} if self.context_parameter else {}
        if self._type is not None:
            return self._body(data, **extra)
        return self._body(**msgspec.structs.asdict(cast("msgspec.Struct", data)), **extra)

    def failed(self, exception: BaseException, data: object) -> object:
        """Run the job's own `failed`, if it has one."""
        return None if self._type is None else self._type().failed(exception, data)

    @property
    def has_failed(self) -> bool:
        """Whether the job wants to know of its end."""
        return self._type is not None and self._type.failed is not Job.failed

    @property
    def failed_is_async(self) -> bool:
        """Whether its `failed` is a coroutine function."""
        return self._type is not None and inspect.iscoroutinefunction(self._type.failed)

    def retry_in(self, attempt: int, exception: BaseException) -> float | None:
        """The job's own opinion on when to try again, in seconds; None leaves it to the policy."""
        own = None if self._type is None else self._type().retry_in(attempt, exception)
        return None if own is None else check_seconds("retry_in", own)


class Registry:
    """The jobs that this process knows, by name and alias."""

    def __init__(self) -> None:
        self._by_name: dict[str, JobDefinition] = {}

    def add(self, definition: JobDefinition, aliases: Sequence[str] = ()) -> None:
        """Make a job known. The same class again replaces it (a reload); another class of that name is an error."""
        for name in (definition.name, *(check_name("alias", alias) for alias in aliases)):
            known = self._by_name.get(name)
            if known is not None and known.job_class != definition.job_class:
                raise OptionInvalid(
                    f'Two jobs are called "{name}": {known.job_class} and {definition.job_class}.',
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
            raise JobUnknown(f'No job is called "{name}" in this process.', mend=mend)
        return definition

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._by_name))


REGISTRY = Registry()


class Job(Fluent, Generic[D]):
    """A kind of job: subclass it and write `handle`. With `Job[Data]` the data is checked against `Data` at push.

    Attributes left alone take the queue's configured default. `max_retries` counts the runs after the first;
    `retry_delay` and `timeout` are seconds (0 = no limit); `priority` goes from -100 to 100, higher first. `name` is
    the key by which workers find the class (default: module and qualified name), `aliases` its former names.
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

    definition: ClassVar[JobDefinition]

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        name = cls.__dict__.get("name") or f"{_module_name(cls.__module__)}.{cls.__qualname__}"
        cls.definition = JobDefinition(name, cast("type[Job[object]]", cls), options_of(cls))
        if cls.handle is not Job.handle:  # an abstract base in between is nothing to run
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

    def _with(self, **option: object) -> Self:
        checked_options(**option)
        changed = copy.copy(self)
        vars(changed).update(option)
        return changed


class BoundJob(Fluent):
    """A job together with its data and options, ready to be pushed."""

    __slots__ = ("data", "definition", "options")

    def __init__(self, definition: JobDefinition, options: JobOptions, data: object) -> None:
        self.definition = definition
        self.options = options
        self.data = data

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

    @property
    def _data_signature(self) -> inspect.Signature:
        whole = inspect.signature(self._function)
        context = self.definition.context_parameter  # comes from the worker
        return whole.replace(parameters=[known for name, known in whole.parameters.items() if name != context])

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> BoundJob:
        """This job with its arguments, for `push`. Raises DataInvalid when they do not fit the signature."""
        try:
            bound = self._data_signature.bind_partial(*args, **kwargs)
        except TypeError as error:
            raise DataInvalid(f"{self.definition.name}: {error}.") from None
        return BoundJob(self.definition, self.options, bound.arguments)

    def _with(self, **option: object) -> Self:
        return type(self)(self._function, self.definition, changed_options(self.options, **option))


@overload
def job(function: Callable[P, R], /) -> FunctionJob[P, R]: ...
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
) -> Callable[[Callable[P, R]], FunctionJob[P, R]]: ...
def job(
    function: Callable[P, R] | None = None,
    /,
    *,
    name: str | None = None,
    aliases: Sequence[str] = (),
    retry_on: tuple[type[BaseException], ...] = (),
    discard_on: tuple[type[BaseException], ...] = (),
    **options: object,
) -> FunctionJob[P, R] | Callable[[Callable[P, R]], FunctionJob[P, R]]:
    """Make a function a job: `@job` or `@job(queue="math", max_retries=5)`. It stays an ordinary function.

    Options as on `Job`. Its arguments are checked against their annotations at push; `*args`, `**kwargs` and
    positional-only parameters are refused, since data travels by name.
    """
    checked = checked_options(**options)

    def decorate(function: Callable[P, R]) -> FunctionJob[P, R]:
        _check_signature(function)
        own = name or f"{_module_name(function.__module__)}.{function.__qualname__}"
        definition = JobDefinition(own, function, checked)
        definition.retry_on = exception_types("retry_on", retry_on)
        definition.discard_on = exception_types("discard_on", discard_on)
        REGISTRY.add(definition, aliases)
        return FunctionJob(function, definition, checked)

    return decorate if function is None else decorate(function)


def as_bound(what: object, data: object, registry: Registry) -> BoundJob:
    """Whatever `push` accepts as a job: an instance, a class, a function job, a bound job, or a registered name."""
    if isinstance(what, BoundJob):
        if data is not None:
            raise OptionInvalid("This job has its data bound already.", mend="Push it without further data.")
        return what
    data = {} if data is None else data
    if isinstance(what, str):
        definition = registry.get(what)
        return BoundJob(definition, definition.options, data)
    if isinstance(what, FunctionJob):
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
    raise OptionInvalid(
        f"{what!r} is not a job.", mend="Push a Job class or instance, a function under @job, or a registered name."
    )


def _check_signature(function: Callable[..., object]) -> None:
    if not inspect.isfunction(function):
        raise OptionInvalid(f"@job is for functions, and {function!r} is none.", mend="Write a function around it.")
    parameters = inspect.signature(function).parameters
    if next(iter(parameters), None) in ("self", "cls"):
        raise OptionInvalid(
            f"@job {function.__qualname__} is a method, and a worker has no object to call it on.",
            mend="Write a function, or a class with `handle`.",
        )
    for parameter in parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise OptionInvalid(
                f"@job {function.__qualname__}: {parameter} cannot travel by name.", mend="Name each argument."
            )


def _runnable(cls: type[Job[object]]) -> JobDefinition:
    if cls.handle is Job.handle:
        raise OptionInvalid(f"{cls.__name__} has no handle(data).", mend="Write one, or push a subclass that has it.")
    return cls.definition


def _typed(hint: object) -> object:
    """The hint where it says more than "some JSON", else None."""
    plain = (None, typing.Any, object, dict, inspect.Parameter.empty)
    is_plain_dict = typing.get_origin(hint) is dict and typing.get_args(hint)[1] in (typing.Any, object)
    return None if hint in plain or isinstance(hint, typing.TypeVar) or is_plain_dict else hint


def _parameters_struct(function: Callable[..., object], hints: Mapping[str, object]) -> type[msgspec.Struct]:
    """A Struct with the function's parameters as fields: the type of a function job's data."""
    fields: list[tuple[str, object] | tuple[str, object, object]] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if hints.get(name) is JobContext:
            continue
        hint = hints.get(name, typing.Any)
        if parameter.default is parameter.empty:
            fields.append((name, hint))
        else:  # by a factory: msgspec refuses lists and the like that are not empty
            fields.append((name, hint, msgspec.field(default_factory=partial(copy.deepcopy, parameter.default))))
    return msgspec.defstruct(
        f"{function.__name__}_data", cast("list[tuple[str, type]]", fields), kw_only=True, forbid_unknown_fields=True
    )


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
