"""Who may do what: every public verb of an Inspector, by every role. A verb that is not in the table fails."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest

from protojobs import JobQueue, Scheduler, job
from protojobs.errors import Forbidden
from protojobs.inspector import Inspector, Role, Viewer
from protojobs.testing import ManualClock
from protojobs_memory import MemoryDriver

# What each verb is called with. `looks` change nothing.
LOOKS: dict[str, tuple[object, ...]] = {
    "now": (),
    "overview": (),
    "running": (),
    "jobs": (),
    "count": (),
    "job": ("FAILED",),
    "failure": ("FAILED",),
    "explain": ("FAILED",),
    "errors": (),
    "error": ("0" * 16,),
    "queues": (),
    "queue": ("odd",),
    "stats": (),
    "workers": (),
    "worker": ("nobody",),
    "schedules": (),
    "schedule": ("often",),
    "series": (),
    "rates": (),
    "depths": (),
    "system": (),
    "doctor": (),
    "audit": (),
    "operations": (),
    "operation": ("none",),
    "wait": ("none",),
    "preview": ("retry", ""),
}
ACTS: dict[str, tuple[object, ...]] = {
    "cancel": (["WAITING"],),
    "retry": (["FAILED"],),
    "forget": (["FAILED"],),
    "retry_edited": ("FAILED", "{}"),
    "pause": ("odd",),
    "resume": ("PAUSED",),
    "clear": ("odd",),
    "run_schedule": ("often",),
    "pause_schedule": ("often",),
    "resume_schedule": ("often",),
    "start": ("forget", ""),
    "stop_operation": ("none",),
}
# They ask no store and show nothing of one: what they are given was shown before, or they only make an Inspector.
FREE = {"next_times", "schedule_words", "seen_by"}


@pytest.fixture
def store() -> MemoryDriver:
    return MemoryDriver(clock=ManualClock())


@pytest.fixture
def queue(store: MemoryDriver) -> JobQueue:
    @job(name="bad", queue="odd", max_retries=0)
    def bad() -> None:
        raise ValueError

    queue = JobQueue(store, {"concurrency": 1})
    queue.push("bad")
    queue.work("odd", 1)
    queue.leave()
    queue.push("bad")
    queue.pause("PAUSED")
    Scheduler(queue).every("bad", 60, id="often")
    return queue


@pytest.fixture
def call(queue: JobQueue) -> Callable[[str, Role], object]:
    """`call(verb, role)` with the arguments of the table; WAITING and FAILED stand for the ids of such jobs."""
    (failed,) = queue.failed_jobs()
    (waiting,) = [one.id for one in queue.find().jobs if one.id != failed.job_id]
    ids = {"FAILED": failed.job_id, "WAITING": waiting}

    def meant(argument: object) -> object:
        return [ids[one] for one in argument] if isinstance(argument, list) else ids.get(str(argument), argument)

    def run(verb: str, role: Role) -> object:
        viewer = Inspector(queue).seen_by(Viewer(name="mo", role=role, address="10.1.2.3"))
        return getattr(viewer, verb)(*map(meant, {**LOOKS, **ACTS}[verb]))

    return run


def everything(store: MemoryDriver) -> object:
    """All that a person could change."""
    jobs = [(one.id, one.status, one.data) for one in store.get([job_id for job_id in store.state.rows])]
    return jobs, store.failed(), [(q.name, q.is_paused) for q in store.queues()], store.list_schedules()


def test_the_table_has_every_public_verb() -> None:
    verbs = {name for name, _ in inspect.getmembers(Inspector, inspect.isfunction) if not name.startswith("_")}
    assert verbs == {*LOOKS, *ACTS, *FREE}


@pytest.mark.parametrize("verb", [*LOOKS, *ACTS])
def test_nobody_without_a_role_may_do_anything(call, store, verb: str) -> None:
    before = everything(store)
    with pytest.raises(Forbidden):
        call(verb, Role.NONE)
    assert everything(store) == before


@pytest.mark.parametrize("verb", LOOKS)
def test_a_reader_may_look(call, store, verb: str) -> None:
    before = everything(store)
    call(verb, Role.READ)
    assert everything(store) == before


@pytest.mark.parametrize("verb", ACTS)
def test_a_reader_changes_nothing_and_the_try_is_noted(call, store, verb: str) -> None:
    before = everything(store)
    with pytest.raises(Forbidden) as caught:
        call(verb, Role.READ)
    assert 'It takes the role "operate"; mo has "read".' in str(caught.value)
    assert everything(store) == before
    (note,) = store.actions().actions
    assert (note.actor, note.address, note.count) == ("mo", "10.1.2.3", 0)
    assert note.detail == "refused: the role is read"


@pytest.mark.parametrize("verb", [verb for verb in ACTS if verb not in ("resume_schedule", "stop_operation", "start")])
def test_an_operator_acts_and_it_is_noted(call, store, verb: str) -> None:
    before = everything(store)
    call(verb, Role.OPERATE)
    assert everything(store) != before
    (note,) = store.actions().actions
    assert (note.actor, note.address, note.count, note.action) == ("mo", "10.1.2.3", 1 + (verb == "clear"), verb)


@pytest.mark.parametrize("verb", LOOKS)
def test_looking_is_not_noted(call, store, verb: str) -> None:
    call(verb, Role.OPERATE)
    assert store.actions().actions == ()
