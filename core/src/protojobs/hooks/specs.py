"""The hooks that a plugin may implement, for pluggy: one for each event, two transforms, and one around each run."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager

import pluggy

from protojobs import events
from protojobs.errors import did_you_mean
from protojobs.events import Event
from protojobs.jobs.context import JobContext
from protojobs.port.records import ClaimedJob, NewJob

__all__ = ["HookSpecs", "hook_name", "hookimpl", "hooks_of"]

hookimpl = pluggy.HookimplMarker("protojobs")
_hookspec = pluggy.HookspecMarker("protojobs")


class HookSpecs:
    """What a plugin may implement. Each is optional; name only the arguments you need."""

    @_hookspec
    def protojobs_before_push(self, job: NewJob) -> NewJob | None:
        """Transform: return a changed job, or None to leave it; raise `PushRejected` to veto. Before `job.queuing`."""

    @_hookspec
    def protojobs_before_run(self, job: ClaimedJob) -> ClaimedJob | None:
        """Transform: undo before the run what `protojobs_before_push` did, in reverse order."""

    @_hookspec
    def protojobs_around_job(self, context: JobContext) -> AbstractContextManager[object] | None:
        """Around: a context manager entered before the job's own code and left after it, in its thread."""


def _observer_spec(name: str) -> Callable[..., object]:
    def spec(self: HookSpecs, event: Event) -> None: ...

    spec.__name__ = hook_name(name)
    spec.__doc__ = f"Observer: `{name}` happened. {events.EVENTS[name].__doc__}"
    return _hookspec(spec)


def hook_name(event_name: str) -> str:
    """The hook of an event: `protojobs_job_failed` for `job.failed`."""
    return "protojobs_" + event_name.replace(".", "_")


for _event_name in events.EVENTS:  # one hook for each event, with the event's own words
    setattr(HookSpecs, hook_name(_event_name), _observer_spec(_event_name))


def hooks_of(name: str, plugin: object) -> list[str]:
    """The hooks that a plugin implements. Raises for one that does not fit, that there is not, or that is async."""
    manager = pluggy.PluginManager("protojobs")
    manager.add_hookspecs(HookSpecs)
    manager.register(plugin, name)
    hooks = sorted(caller.name for caller in manager.get_hookcallers(plugin) or [])
    names = [hook for hook in dir(HookSpecs) if hook.startswith("protojobs_")]
    for hook in hooks:
        if hook not in names:
            raise LookupError(f"there is no hook {hook}. {did_you_mean(hook, names)}".rstrip())
        if inspect.iscoroutinefunction(getattr(plugin, hook)):
            raise TypeError(f"{hook} is async, and hooks are plain functions")
    return hooks
