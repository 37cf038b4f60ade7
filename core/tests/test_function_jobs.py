"""Function jobs: still ordinary functions, whose arguments are checked when they are pushed."""

from __future__ import annotations

import functools
import inspect
import itertools
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Optional

import pytest

from protojobs import BoundJob, Job, JobContext, JobQueue, job
from protojobs.errors import DataInvalid, OptionInvalid, PayloadError, PayloadNotEncodable
from protojobs.jobs.definition import REGISTRY

SENTINEL = object()
ran: list[object] = []


@pytest.fixture(autouse=True)
def _nothing_ran_yet() -> None:
    ran.clear()


def test_a_function_job_is_still_an_ordinary_function() -> None:
    @job(name="add")
    def add(a: int, b: int = 2) -> int:
        """Add."""
        return a + b

    assert add(1) == 3
    assert (vars(add)["__name__"], add.__doc__) == ("add", "Add.")


def test_its_arguments_reach_the_worker_with_the_defaults_of_the_worker(queue: JobQueue) -> None:
    @job(name="add", queue="math", max_retries=5)
    def add(a: int, b: int = 2, *, scale: float = 1.0) -> None:
        ran.append((a, b, scale))

    queue.push(add.bind(1))
    queue.push(add.bind(1, 5, scale=3))
    queue.push(add, {"a": 9})
    queue.push("add", {"a": 10})
    assert queue.work("math", 9, concurrency=1).done == 4
    assert ran == [(1, 2, 1.0), (1, 5, 3.0), (9, 2, 1.0), (10, 2, 1.0)]


def test_the_bare_decorator_names_it_by_module_and_qualified_name() -> None:
    assert bare.definition.name == f"{__name__}.bare"


@job
def bare() -> None: ...


def test_bind_refuses_what_does_not_fit_the_signature_in_the_callers_stack(queue: JobQueue) -> None:
    @job(name="add")
    def add(a: int, b: int) -> None: ...

    for wrong in (lambda: add.bind(1), lambda: add.bind(1, 2, 3), lambda: add.bind(1, c=2), lambda: add.bind(1, a=1)):  # type: ignore[call-arg, misc]  # the point
        with pytest.raises(DataInvalid):
            wrong()  # type: ignore[no-untyped-call]  # lambdas
    for bound in (add.bind("x", 2), add.bind(1, None), add.bind(1, 2.5)):  # type: ignore[arg-type]  # the point
        with pytest.raises(DataInvalid):
            queue.push(bound)
    for data in ({"a": 1}, {"a": 1, "b": 2, "c": 3}, None, [1, 2]):
        with pytest.raises(DataInvalid):
            queue.push(add, data)
    assert queue.stats().total == 0


def test_bind_gives_arguments_to_parameters_as_a_call_does() -> None:
    @job(name="all-kinds")
    def all_kinds(a: object, ctx: JobContext, b: object = 2, *, c: object, d: object = 4) -> None: ...

    signature = inspect.Signature(
        [known for name, known in inspect.signature(all_kinds).parameters.items() if name != "ctx"]
    )
    values, names = (1, 2, 3, 4), ("a", "b", "c", "d", "ctx", "e")
    fit = 0
    for places in range(4):
        for given in itertools.chain.from_iterable(itertools.combinations(names, size) for size in range(5)):
            args, kwargs = values[:places], dict.fromkeys(given, 0)
            bind: Callable[..., BoundJob] = all_kinds.bind
            try:
                expected = signature.bind(*args, **kwargs).arguments
            except TypeError as error:
                with pytest.raises(DataInvalid, match=re.escape(str(error))):
                    bind(*args, **kwargs)
            else:
                assert bind(*args, **kwargs).data == expected
                fit += 1
    assert fit == 10


def test_arguments_without_annotation_may_be_any_json(queue: JobQueue) -> None:
    def loose(value, other: object = None):  # type: ignore[no-untyped-def]  # the point
        ran.append((value, other))

    plain: Callable[..., None] = loose
    bind: Callable[..., BoundJob] = job(name="loose")(plain).bind
    queue.push(bind({"a": [1]}, other="x"))
    with pytest.raises(PayloadError):
        queue.push(bind(object()))
    queue.work("default", 5)
    assert ran == [({"a": [1]}, "x")]


def test_defaults_that_are_lists_are_fresh_for_each_run(queue: JobQueue) -> None:
    @job(name="collect")
    def collect(n: int, seen: list[int] = [0]) -> None:  # noqa: B006  (the point)
        seen.append(n)
        ran.append(seen)

    queue.push(collect.bind(1))
    queue.push(collect.bind(2))
    assert queue.work("default", 2, concurrency=1).done == 2
    assert ran == [[0, 1], [0, 2]]


def test_a_default_that_json_cannot_hold_is_a_typed_error_at_push(queue: JobQueue) -> None:
    @job(name="odd")
    def odd(n: int, mark: object = SENTINEL) -> None: ...

    with pytest.raises(DataInvalid, match="default"):
        queue.push(odd.bind(1))
    assert queue.stats().total == 0


def test_the_context_comes_from_the_worker_wherever_the_parameter_stands(queue: JobQueue) -> None:
    @job(name="first")
    def first(context: JobContext, n: int) -> None:
        ran.append((context.attempt, context.queue, n))

    @job(name="last")
    def last(n: int, *, context: JobContext) -> None:
        ran.append((context.attempt, context.queue, n))

    queue.push(first.bind(1))  # type: ignore[call-arg, arg-type]  # a type checker cannot know
    queue.push(last.bind(2))  # type: ignore[call-arg]  # as above
    queue.work("default", 2, concurrency=1)
    assert ran == [(1, "default", 1), (1, "default", 2)]


def test_a_context_that_may_be_none_comes_from_the_worker_too(queue: JobQueue) -> None:
    @job(name="either")
    def either(n: int, context: JobContext | None = None) -> None:
        ran.append((n, context and context.attempt))

    @job(name="or-else")
    async def or_else(n: int, *, context: Optional[JobContext] = None) -> None:  # noqa: UP045  (as it was written before)
        ran.append((n, context and context.attempt))

    class Plain(Job):
        name = "plain"

        def handle(self, data: int, ctx: JobContext | None = None) -> None:
            ran.append((data, ctx and ctx.attempt))

    either(1)
    queue.push_many([either.bind(2), or_else.bind(3), Plain.bind(4)])
    assert queue.work("default", 3, concurrency=1).done == 3
    assert sorted(ran, key=str) == [(1, None), (2, 1), (3, 1), (4, 1)]
    with pytest.raises(DataInvalid, match="context"):
        queue.push(either, {"n": 1, "context": None})


def test_an_async_function_runs_on_the_event_loop(queue: JobQueue) -> None:
    @job(name="hello")
    async def hello(name: str) -> str:
        ran.append(name)
        return name

    queue.push(hello.bind("jo"))
    assert queue.work("default", 1).done == 1
    assert ran == ["jo"]


@pytest.mark.parametrize(
    "function",
    [
        lambda *args: None,
        lambda **kwargs: None,
        lambda a, /: None,
        lambda self, a: None,
        lambda cls: None,
        lambda: (yield),
        functools.partial(print, 1),
        print,
        Job,
    ],
)
def test_what_cannot_travel_by_name_or_has_no_object_in_a_worker_is_refused_at_definition(function: object) -> None:
    with pytest.raises(OptionInvalid, match="@job"):
        job(name="wrong")(function)  # type: ignore[arg-type]  # what an unchecked caller may write
    assert list(REGISTRY) == []


def test_a_static_method_is_a_function_and_may_be_a_job(queue: JobQueue) -> None:
    class Shop:
        @staticmethod
        @job(name="shop.close")
        def close(n: int) -> None:
            ran.append(n)

    queue.push(Shop.close.bind(3))
    queue.work("default", 1)
    assert ran == [3]


def test_a_misspelt_option_is_an_error_that_says_which_was_meant() -> None:
    with pytest.raises(OptionInvalid, match='Did you mean "max_retries"'):
        job(max_retrys=3)  # type: ignore[call-overload]  # the point


def test_what_json_would_change_is_refused_unless_a_parameter_declares_its_type(queue: JobQueue) -> None:
    @job(name="loose")
    def loose(when: object) -> None: ...

    @job(name="exact")
    def exact(when: datetime) -> None:
        ran.append(when)

    noon = datetime(2030, 1, 1, 12, tzinfo=UTC)
    for bound in (loose.bind(noon), loose.bind([{"at": noon}])):
        with pytest.raises(PayloadNotEncodable, match=r"\$\.when.* is a datetime\.datetime"):
            queue.push(bound)
    assert queue.stats().total == 0
    queue.push(exact.bind(noon))
    queue.work("default", 1)
    assert ran == [noon]


class TestWhatOthersWrite:
    """Slips of people who come from other libraries, and of people in a hurry."""

    @pytest.mark.parametrize("data", [1, "x", [1, 2], (1,)])
    @pytest.mark.parametrize("by_name", [False, True])
    def test_a_value_for_a_function_is_refused_with_the_way_to_bind_it(
        self, queue: JobQueue, data: object, by_name: bool
    ) -> None:
        @job(name="invoice")
        def invoice(number: int) -> None: ...

        with pytest.raises(DataInvalid, match=r"takes its arguments by name") as refusal:
            queue.push("invoice" if by_name else invoice, data)
        assert 'push(invoice.bind(...)). Or name each: {"number": ...}' in refusal.value.mend

    @pytest.mark.parametrize("word", ["delay", "apply_async", "send", "defer"])
    def test_the_verbs_of_others_lead_to_push(self, word: str) -> None:
        with pytest.raises(AttributeError, match=r"queue\.push\(bare\.bind\(\.\.\.\)\)"):
            getattr(bare, word)
        assert not hasattr(bare, word)
        with pytest.raises(AttributeError, match="no attribute 'dely'"):
            getattr(bare, "dely")  # noqa: B009  (what a type checker would refuse)

    def test_a_nested_function_or_a_lambda_needs_a_name_since_no_worker_can_import_it(self, queue: JobQueue) -> None:
        def view() -> None: ...

        for function in (view, lambda: None):
            with pytest.raises(OptionInvalid, match="no worker can import") as refusal:
                job(function)
            assert "name=" in refusal.value.mend
        named = job(name="inner.view")(view)
        queue.push(named)
        assert queue.work("default", 1).done == 1

    def test_an_empty_name_is_refused_and_none_is_the_default(self) -> None:
        for name in ("", "  "):
            with pytest.raises(OptionInvalid, match="job name"):
                job(name=name)(bare._function)  # pyright: ignore[reportPrivateUsage]
