"""Calls of `push` that other libraries would understand: what they are told."""

from __future__ import annotations

import asyncio

import pytest

from protojobs import Job, JobQueue, Scheduler, create_driver, job
from protojobs.errors import DataInvalid


@job(name="push-calls.invoice")
def invoice(number: int, copies: int = 1) -> None: ...


class Note(Job):
    name = "push-calls.note"

    def handle(self, data: dict[str, object]) -> None: ...


BIND = "Bind the function's arguments: {}(invoice.bind(...))."
DATA = "Put all that the job needs into data: a dict, or an object of its data type."


@pytest.fixture
def queue():
    with JobQueue(create_driver("memory://")) as queue:
        yield queue


@pytest.mark.parametrize(
    ("args", "kwargs", "told"),
    [
        ((invoice, 1, "x"), {}, f"push() takes one value as data, and got 'x' too. {BIND.format('push')}"),
        ((invoice,), {"number": 1}, f'push() has no argument "number". {BIND.format("push")}'),
        ((Note, {}, 3), {}, f"push() takes one value as data, and got 3 too. {DATA}"),
        ((Note,), {"to": "jo"}, f'push() has no argument "to". {DATA}'),
        ((Note, {}), {"sesion": None}, 'push() has no argument "sesion". Did you mean "session"?'),
    ],
)
def test_arguments_of_the_job_are_told_where_they_belong(queue, args, kwargs, told) -> None:
    with pytest.raises(TypeError) as raised:
        queue.push(*args, **kwargs)
    assert str(raised.value) == told
    assert queue.stats().pending == 0


@pytest.mark.parametrize(
    "name", ["delay", "apply_async", "send", "send_with_options", "defer", "schedule", "enqueue", "s", "si"]
)
def test_what_a_job_of_another_library_can_is_told_in_our_words(name) -> None:
    with pytest.raises(AttributeError) as raised:
        getattr(invoice, name)
    assert str(raised.value) == (
        f"A job has no {name}(): push it to a queue: queue.push(invoice.bind(...)), or queue.later(60, "
        "invoice.bind(...)). To run it here and now, call it."
    )


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("enqueue", "queue.push(my_job.bind(...))"),
        ("enqueue_call", "queue.push(my_job.bind(...))"),
        ("enqueue_job", "queue.push(my_job.bind(...))"),
        ("send_task", "queue.push(my_job.bind(...))"),
        ("apply_async", "queue.push(my_job.bind(...))"),
        ("delay", "queue.push(my_job.bind(...))"),
        ("send", "queue.push(my_job.bind(...))"),
        ("dispatch", "queue.push(my_job.bind(...))"),
        ("defer", "queue.push(my_job.bind(...))"),
        ("enqueue_in", "queue.later(60, my_job.bind(...))"),
        ("enqueue_at", "queue.later(60, my_job.bind(...))"),
        ("enqueue_many", "queue.push_many([my_job.bind(...), ...])"),
        ("add_periodic_task", "Scheduler(queue).every(my_job, 60)"),
        ("every", "Scheduler(queue).every(my_job, 60)"),
        ("hourly", "Scheduler(queue).hourly(my_job)"),
        ("daily", 'Scheduler(queue).daily(my_job, at="02:30")'),
        ("weekly", 'Scheduler(queue).weekly(my_job, day="monday")'),
        ("cron", 'Scheduler(queue).cron(my_job, "0 7 * * *")'),
    ],
)
def test_what_a_queue_of_another_library_can_is_told_in_our_words(queue, name, call) -> None:
    with pytest.raises(AttributeError) as raised:
        getattr(queue, name)
    assert str(raised.value) == f"A JobQueue has no {name}(). Write {call}."
    owner = Scheduler(queue) if call.startswith("Scheduler") else queue
    assert callable(
        getattr(owner, call.removeprefix("Scheduler(queue)").removeprefix("queue").strip(".").partition("(")[0])
    )


def test_another_name_that_a_queue_has_not_is_an_ordinary_attribute_error(queue) -> None:
    with pytest.raises(AttributeError) as raised:
        _ = queue.psuh
    assert str(raised.value) == "'JobQueue' object has no attribute 'psuh'"


def test_all_ways_to_push_tell_it(queue) -> None:
    with pytest.raises(TypeError) as later:
        queue.later(60, invoice, 1, 2)
    with pytest.raises(TypeError) as apush:
        asyncio.run(queue.apush(invoice, 1, 2))
    with pytest.raises(TypeError) as alater:
        asyncio.run(queue.alater(60, invoice, 1, 2))
    assert [str(one.value) for one in (later, apush, alater)] == [
        f"{name}() takes one value as data, and got 2 too. {BIND.format(name)}" for name in ("later", "apush", "alater")
    ]


def test_a_value_where_a_function_wants_arguments_is_told_how_to_bind(queue) -> None:
    with pytest.raises(DataInvalid) as raised:
        queue.push(invoice, 7)
    assert str(raised.value) == (
        'job "push-calls.invoice" takes its arguments by name, and got 7. Bind them: push(invoice.bind(...)). '
        'Or name each: {"number": ...}.'
    )
