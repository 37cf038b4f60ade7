"""Hooks: calls the plugins of one JobQueue and the listeners of this process, and keeps one from hurting another.

Three kinds of hook, and what happens when one raises:

* *observers* (`protojobs_job_processed(event)` and its kin): each in its own `try`; the others still run, the job does
  not notice. Twenty errors in a row silence that listener for five minutes.
* *around* (`protojobs_around_job`): a context manager entered in the job's own thread and context. An error of its own
  is logged; the job runs.
* *transforms* (`protojobs_before_push`, `protojobs_before_run`): they fail closed, since a plugin that encrypts must
  not be passed over. The push raises; at run time the job goes back unspent. So it is with a plugin that the settings
  name and that is not there: nobody can know which hooks it would have had.

`pm.hook.x()` is not called for events: it stops at the first error and costs most when nobody listens. The
implementations are taken once, and looped over.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import datetime
from functools import cache
from typing import TypeVar, cast

import msgspec
import pluggy

from protojobs import events
from protojobs.clock import SYSTEM_CLOCK, Clock
from protojobs.errors import ConfigurationError, ProtojobsError, PushRejected, did_you_mean, shown
from protojobs.events import Event, Listener
from protojobs.hooks.specs import HookSpecs, hook_name
from protojobs.interrupts import Interrupted
from protojobs.jobs.context import JobContext
from protojobs.port.records import ClaimedJob, NewJob

__all__ = ["Hooks"]

QUARANTINE_AFTER = 20  # errors in a row
QUARANTINE_S = 300.0
FAILING_MAX = 1_000  # listeners that are remembered as failing; some may be gone

_log = logging.getLogger("protojobs.hooks")
_fields_of = cache(msgspec.structs.fields)
_T = TypeVar("_T", NewJob, ClaimedJob)
_N = TypeVar("_N", int, float)


class Hooks:
    """The plugins of one JobQueue, and everybody who listens to events in this process."""

    def __init__(
        self,
        plugins: Sequence[tuple[str, object]] = (),
        *,
        clock: Clock = SYSTEM_CLOCK,
        left_out: Mapping[str, str] | None = None,
        missing: Mapping[str, str] | None = None,
    ) -> None:
        self.left_out = dict(left_out or {})  # installed plugins that cannot be used -> why
        self.missing = dict(missing or {})  # the same of those that the settings name
        self._clock = clock
        self._manager = pluggy.PluginManager("protojobs")
        self._manager.add_hookspecs(HookSpecs)
        for name, plugin in plugins:
            try:
                self._manager.register(plugin, name)
            except Exception as error:  # noqa: BLE001  (a broken plugin must not stop the program that has it installed)
                _log.error("plugin %s is left out, it does not fit the hooks: %s", name, error)
                self.left_out[name] = f"it does not fit the hooks: {error}"
                if self._manager.get_plugin(name) is plugin:  # pluggy keeps what it had taken in before
                    self._manager.unregister(plugin)
        for caller in (c for _, p in self._manager.list_name_plugin() for c in self._manager.get_hookcallers(p) or ()):
            if not caller.has_spec():
                _log.error("there is no hook %s. %s", caller.name, did_you_mean(caller.name, dir(HookSpecs)))
        self._observers = {name: tuple(self._implementations(hook_name(name))) for name in events.EVENTS}
        self._before_push = cast(
            "tuple[Callable[[NewJob], NewJob | None], ...]", tuple(self._implementations("protojobs_before_push"))
        )
        self._before_run = cast(
            "tuple[Callable[[ClaimedJob], ClaimedJob | None], ...]",
            tuple(self._implementations("protojobs_before_run"))[::-1],
        )
        self.around_job = cast(
            "tuple[Callable[[JobContext], AbstractContextManager[object] | None], ...]",
            tuple(self._implementations("protojobs_around_job")),
        )
        if self.missing:
            self._before_push = self._before_run = (self._refuse,)
        self.has_before_push, self.has_before_run = bool(self._before_push), bool(self._before_run)
        # By the listener's id(), for it need not be hashable; and the listener itself, so that no other has that id.
        self._errors: dict[int, tuple[object, int]] = {}
        self._silent_until: dict[int, tuple[object, float]] = {}

    @property
    def plugins(self) -> list[str]:
        """The names of the plugins in use."""
        return [name for name, _ in self._manager.list_name_plugin()]

    def check(self) -> None:
        """Raise ConfigurationError where a plugin that the settings name cannot be used."""
        if self.missing:
            raise _cannot_be_used(*next(iter(self.missing.items())))

    def listens(self, event_name: str) -> bool:
        """Whether anybody would hear it; ask before building the event."""
        return bool(self._observers[event_name] or events.LISTENERS.get(event_name))

    def notify(self, event: Event) -> None:
        """Call every observer of the event here and now, each in isolation. Never raises an Exception."""
        name = event.event_name
        for listener in (*self._observers[name], *events.listeners(name)):
            if self._silent_until and self._is_silent(listener):
                continue
            try:
                listener(event)
            except Exception as error:  # noqa: BLE001  (a listener's own trouble is nobody else's)
                self._count_error(name, listener, error)
            else:
                self._errors.pop(id(listener), None)

    def before_push(self, job: NewJob) -> NewJob:
        """Run the push transforms in order. Raises PushRejected, or ConfigurationError where a plugin is missing."""
        for transform in self._before_push:
            try:
                job = _same_kind(transform(job), job)
            except ProtojobsError:
                raise
            except Exception as error:
                raise self._rejected(job, transform, error) from error
        return job

    def before_run(self, job: ClaimedJob) -> ClaimedJob:
        """Run the run transforms in reverse order; whatever they raise passes."""
        for transform in self._before_run:
            job = _same_kind(transform(job), job)
        return job

    @contextmanager
    def around(self, context: JobContext) -> Generator[None]:
        """All around hooks, entered; their own errors are logged and change nothing."""
        with ExitStack() as stack:
            for hook in self.around_job:
                stack.enter_context(_isolated(hook, context))
            yield

    def _implementations(self, hook_name: str) -> Iterator[Listener]:
        caller = cast("pluggy.HookCaller", getattr(self._manager.hook, hook_name))
        for implementation in caller.get_hookimpls():
            function = cast("Listener", implementation.function)
            if inspect.iscoroutinefunction(function):
                _log.error(
                    "plugin %s: %s is async, and hooks are plain functions", implementation.plugin_name, hook_name
                )
                continue
            yield function if implementation.argnames else _without_arguments(function)

    def _refuse(self, _job: object) -> None:
        self.check()

    def _rejected(self, job: NewJob, transform: object, error: Exception) -> PushRejected:
        implementations = self._manager.hook.protojobs_before_push.get_hookimpls()
        names = [one.plugin_name for one in implementations if one.function == transform]
        return PushRejected(
            f'job "{job.job_name}" was not stored: {" ".join(["plugin", *names])} failed while it prepared the job'
            f" ({shown(error)}).",
            mend="Mend or disable the plugin (`protojobs plugins` lists them).",
        )

    def _is_silent(self, listener: object) -> bool:
        silent = self._silent_until.get(id(listener))
        if silent is not None and self._clock.monotonic() >= silent[1]:
            self._silent_until.pop(id(listener), None)  # another thread may be faster
            silent = None
        return silent is not None

    def _count_error(self, name: str, listener: object, error: Exception) -> None:
        count = self._errors.get(id(listener), (listener, 0))[1] + 1
        _remember(self._errors, listener, count)
        _log.error("a listener to %s failed, the job is not affected: %r", name, error, exc_info=error)
        if count >= QUARANTINE_AFTER:
            self._errors.pop(id(listener), None)
            _remember(self._silent_until, listener, self._clock.monotonic() + QUARANTINE_S)
            _log.error("%r failed %d times in a row and is left out for %d s", listener, count, QUARANTINE_S)


def _remember(memory: dict[int, tuple[object, _N]], listener: object, value: _N) -> None:
    if len(memory) >= FAILING_MAX and id(listener) not in memory:
        memory.pop(next(iter(memory)), None)
    memory[id(listener)] = (listener, value)


@contextmanager
def _isolated(
    hook: Callable[[JobContext], AbstractContextManager[object] | None], context: JobContext
) -> Generator[None]:
    try:
        if (manager := hook(context)) is not None:
            manager.__enter__()
    except Interrupted:  # it has struck here: the run's time is over
        raise
    except BaseException:  # noqa: BLE001  (tracing must not fail the job, by sys.exit() neither)
        _log.exception("an around hook failed on the way in; job %s runs on", context.id)
        manager = None
    if manager is None:
        yield
        return
    caught: BaseException | None = None
    try:
        yield
    except BaseException as error:
        caught = error
        raise
    finally:
        try:
            manager.__exit__(type(caught) if caught else None, caught, caught.__traceback__ if caught else None)
        except Interrupted:
            raise
        except BaseException:  # noqa: BLE001  (as above, on the way out)
            _log.exception("an around hook failed on the way out; job %s is not affected", context.id)


def _cannot_be_used(name: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f'The plugin "{name}" of the setting plugins cannot be used: {why.removesuffix(".")}.'
        " Nothing is pushed or run without it.",
        mend=f"Mend it, or leave it out: PROTOJOBS_PLUGINS_DISABLED={name}",
    )


def _same_kind(answer: _T | None, job: _T) -> _T:
    """What a transform made of the job; None leaves it as it is."""
    if answer is None:
        return job
    if not isinstance(answer, type(job)):
        raise TypeError(f"it answered {type(answer).__name__} where a {type(job).__name__} or None is due")
    if isinstance(answer, NewJob):
        _check_changed(answer, job)
    return answer


def _check_changed(new: NewJob, old: object) -> None:
    """Refuse a value that no store could take, such as a dict for `meta`, which is text."""
    for field in _fields_of(NewJob):
        value = getattr(new, field.name)
        if value is not getattr(old, field.name):
            try:
                msgspec.convert(value, field.type, builtin_types=(datetime,))
            except msgspec.ValidationError as error:
                raise TypeError(f"{field.name} of its NewJob: {error}") from None


def _without_arguments(function: Listener) -> Listener:
    return lambda _event: cast("Callable[[], object]", function)()
