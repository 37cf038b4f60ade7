"""Class jobs: their names, their options, and what is refused when they are defined or pushed."""

from __future__ import annotations

import gc
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import MappingProxyType

import msgspec
import pytest

from protojobs import Backoff, Job, JobContext, JobQueue, Settings, job
from protojobs.errors import DataInvalid, JobUnknown, OptionInvalid, PayloadError
from protojobs.jobs.checks import METHODS
from protojobs.jobs.definition import REGISTRY, JobDefinition
from protojobs.jobs.job_class import as_bound


class Picture(msgspec.Struct):
    path: str
    width: int = 100


def define(qualname: str, *, module: str = "shop.jobs", bases: tuple[type, ...] = (Job,), **attributes: object) -> type:
    """A job class as if it stood in `module`."""
    body = {"__module__": module, "__qualname__": qualname, "handle": lambda self, data: None, **attributes}
    return type(qualname.rpartition(".")[2], bases, body)


class TestNaming:
    def test_a_job_is_called_by_its_module_and_qualified_name(self) -> None:
        kind = define("Mail.Welcome")
        assert as_bound(kind, None, REGISTRY).definition.name == "shop.jobs.Mail.Welcome"

    def test_a_name_of_its_own_wins_and_job_class_still_tells_where_it_is(self) -> None:
        definition = as_bound(define("Welcome", name="mail.welcome"), None, REGISTRY).definition
        assert (definition.name, definition.job_class) == ("mail.welcome", "shop.jobs.Welcome")
        assert REGISTRY.find("shop.jobs.Welcome") is None

    def test_a_subclass_does_not_inherit_name_and_aliases(self) -> None:
        parent = define("Parent", name="parent", aliases=("old",))
        child = define("Child", bases=(parent,))
        assert as_bound(child, None, REGISTRY).definition.name == "shop.jobs.Child"
        assert REGISTRY.get("old").name == "parent"

    def test_an_alias_finds_the_job_under_its_former_name(self) -> None:
        define("New", name="new", aliases=("shop.Old", "older"))
        assert REGISTRY.get("shop.Old") is REGISTRY.get("older") is REGISTRY.get("new")

    def test_two_different_classes_under_one_name_are_an_error_that_names_both(self) -> None:
        define("First", name="mail")
        with pytest.raises(OptionInvalid, match=r"shop\.jobs\.First.*shop\.other\.Second"):
            define("Second", module="shop.other", name="mail")

    def test_an_alias_that_is_another_jobs_name_is_an_error(self) -> None:
        define("First", name="mail")
        with pytest.raises(OptionInvalid, match="mail"):
            define("Second", name="post", aliases=("mail",))

    def test_the_same_class_defined_again_replaces_the_first(self) -> None:
        define("Again")
        second = define("Again")
        assert REGISTRY.get("shop.jobs.Again") is as_bound(second, None, REGISTRY).definition

    @pytest.mark.parametrize("name", ["", " "])
    def test_an_empty_name_is_refused_and_no_name_is_the_default(self, name: str) -> None:
        with pytest.raises(OptionInvalid, match="job name"):
            define("Computed", name=name)
        assert as_bound(define("Plain", name=None), None, REGISTRY).definition.name == "shop.jobs.Plain"

    def test_a_class_inside_a_function_needs_a_name_since_no_worker_can_import_it(self) -> None:
        with pytest.raises(OptionInvalid, match="no worker can import") as refusal:
            define("view.<locals>.Mail")
        assert "name=" in refusal.value.mend
        assert as_bound(define("view.<locals>.Mail", name="mail.inner"), None, REGISTRY).definition.name == "mail.inner"

    @pytest.mark.parametrize(
        ("attribute", "meant"), [("retires", "max_retries"), ("on_queu", "queue"), ("with_timeouts", "timeout")]
    )
    def test_a_misspelt_word_of_the_fluent_settings_is_refused_with_the_option(
        self, attribute: str, meant: str
    ) -> None:
        with pytest.raises(OptionInvalid, match=f'Did you mean "{meant}"'):
            define("Mail", **{attribute: 3})

    def test_an_abstract_base_without_handle_is_not_registered_and_cannot_be_pushed(self) -> None:
        class Base(Job):
            name = "base"
            queue = "emails"

        assert REGISTRY.find("base") is None
        for what in (Base, Base(), Job):
            with pytest.raises(OptionInvalid, match="handle"):
                as_bound(what, None, REGISTRY)

    def test_an_unknown_name_is_an_error_that_suggests_the_closest(self) -> None:
        define("SendMail")
        with pytest.raises(JobUnknown, match=r'Did you mean "shop\.jobs\.SendMail"'):
            REGISTRY.get("shop.jobs.SendMial")

    @pytest.mark.parametrize("name", ["x" * 101, "a\nb", 7])
    def test_a_name_that_no_store_keeps_is_refused_when_the_class_is_defined(self, name: object) -> None:
        with pytest.raises(OptionInvalid, match="job name"):
            define("Bad", name=name)

    @pytest.mark.parametrize(
        ("command", "expected"),
        [(["shop_tasks.py"], "shop_tasks.Send"), (["-m", "shop_tasks"], "shop_tasks.Send"),
         (["-m", "shop"], "shop.Send"), (["-c", "import runpy; runpy.run_path('shop_tasks.py')"], "<run_path>.Send")],
    )  # fmt: skip
    def test_no_job_is_ever_called_main(self, command: list[str], expected: str, tmp_path: Path) -> None:
        code = "from protojobs import Job\nclass Send(Job):\n    def handle(self, data): ...\n"
        code += "print(Send.definition.name)\n"
        (tmp_path / "shop_tasks.py").write_text(code)
        (tmp_path / "shop").mkdir()
        (tmp_path / "shop" / "__main__.py").write_text(code)
        ran = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, timeout=30)
        assert (ran.stdout.strip(), ran.stderr) == (expected, "")


class TestOptions:
    def test_attributes_left_alone_take_the_queues_defaults(self, make_queue: Callable[..., JobQueue]) -> None:
        define("Plain", name="plain")
        queue = make_queue(max_retries=7, retry_delay=5.0, timeout=9.0, default_queue="bulk")
        record = queue.get(queue.push("plain"))
        assert record is not None
        assert (record.queue, record.max_retries, record.retry_delay, record.timeout) == ("bulk", 7, 5.0, 9.0)

    def test_attributes_of_the_class_win_over_the_queues_defaults(self, queue: JobQueue) -> None:
        kind = define("Own", name="own", queue="emails", max_retries=0, retry_delay=0, timeout=0, priority=-100)
        record = queue.get(queue.push(kind))
        assert record is not None
        assert (record.queue, record.max_retries, record.retry_delay, record.timeout, record.priority) == (
            "emails", 0, 0.0, 0.0, -100,
        )  # fmt: skip

    def test_a_subclass_inherits_options(self) -> None:
        parent = define("Parent", queue="emails", max_retries=9)
        options = as_bound(define("Child", bases=(parent,), max_retries=1), None, REGISTRY).options
        assert (options.queue, options.max_retries) == ("emails", 1)

    def test_fluent_settings_return_copies_and_leave_the_original_alone(self, queue: JobQueue) -> None:
        class Send(Job):
            name = "send"

            def handle(self, data: dict[str, object]) -> None: ...

        job = Send()
        changed = job.on_queue("urgent").retries(3).retry_after(30).with_timeout(120).with_priority(5)
        first, second = queue.get(queue.push(changed)), queue.get(queue.push(job))
        assert first is not None
        assert second is not None
        assert (first.queue, first.max_retries, first.retry_delay, first.timeout, first.priority) == (
            "urgent", 3, 30.0, 120.0, 5,
        )  # fmt: skip
        assert (second.queue, second.priority, second.timeout) == ("default", 0, 60.0)
        assert (Send.queue, vars(job)) == (None, {})

    def test_fluent_settings_work_on_a_bound_job_too(self) -> None:
        class Send(Job):
            name = "send"

            def handle(self, data: object) -> None: ...

        bound = Send.bind({"a": 1})
        assert bound.on_queue("urgent").options.queue == "urgent"
        assert (bound.options.queue, bound.with_priority(3).data) == (None, {"a": 1})

    @pytest.mark.parametrize(
        "wrong",
        [{"priority": 101}, {"priority": "high"}, {"max_retries": -1}, {"max_retries": 1.5}, {"timeout": -1},
         {"timeout": float("nan")}, {"retry_delay": float("inf")}, {"queue": ""}, {"queue": "a\x00"}, {"queue": 3},
         {"backoff": "fast"}, {"backoff": []}, {"retry_on": "ValueError"}, {"discard_on": (3,)}],
    )  # fmt: skip
    def test_an_option_out_of_range_is_refused_when_the_class_is_defined(self, wrong: dict[str, object]) -> None:
        with pytest.raises(OptionInvalid, match=next(iter(wrong))):
            define("Wrong", **wrong)  # type: ignore[arg-type]  # attributes only
        assert list(REGISTRY) == []

    def test_a_handle_with_a_yield_is_refused_since_nobody_goes_through_what_it_makes(self) -> None:
        async def waiting(self: object, data: object) -> AsyncIterator[object]:
            yield data

        for handle in (lambda self, data: (yield data), waiting):
            with pytest.raises(OptionInvalid, match="has a `yield`"):
                define("Wrong", handle=handle)
        assert list(REGISTRY) == []

    @pytest.mark.parametrize(
        ("name", "mend"),
        [("retries", "Write max_retries = 7."), ("retry_after", "Write retry_delay = 7."),
         ("retry_in", "Write retry_delay = 7."), ("on_queue", "Write queue = 7."),
         ("with_timeout", "Write timeout = 7."), ("with_priority", "Write priority = 7."), ("failed", "Write `def"),
         ("bind", "Write `def"), ("handle", "Write `def")],
    )  # fmt: skip
    def test_a_value_under_the_name_of_a_method_is_refused_with_the_option_that_was_meant(
        self, name: str, mend: str
    ) -> None:
        values: dict[str, object] = {name: 7}
        with pytest.raises(OptionInvalid, match=f"Wrong.{name} is a method of every job") as refusal:
            define("Wrong", **values)  # type: ignore[arg-type]  # attributes only
        assert refusal.value.mend.startswith(mend)
        assert list(REGISTRY) == []

    def test_one_that_stands_on_an_abstract_base_is_refused_with_the_first_class_that_runs(self) -> None:
        class Base(Job):
            name = "base"
            retries = 5  # type: ignore[assignment]  # the point

        with pytest.raises(OptionInvalid, match="max_retries = 5"):
            define("Wrong", bases=(Base,))

    def test_every_public_method_of_a_job_is_among_them(self) -> None:
        public = {name for name in dir(Job) if not name.startswith("_") and callable(getattr(Job, name))}
        assert public == METHODS.keys()

    def test_one_exception_class_may_stand_alone(self) -> None:
        assert as_bound(define("One", retry_on=OSError), None, REGISTRY).definition.retry_on == (OSError,)

    @pytest.mark.parametrize("change", ["on_queue", "retries", "retry_after", "with_timeout", "with_priority"])
    def test_a_fluent_setting_out_of_range_is_refused_at_the_call(self, change: str) -> None:
        with pytest.raises(OptionInvalid):
            getattr(define("Plain")(), change)(-1e9)

    def test_a_backoff_travels_with_the_job(self, queue: JobQueue) -> None:
        record = queue.get(queue.push(define("Steps", name="steps", backoff=[1, 2, 3])))
        assert record is not None
        assert msgspec.json.decode(record.retry_policy or "", type=Backoff) == Backoff(delays=(1.0, 2.0, 3.0))


class TestPushedInstances:
    def test_attributes_set_on_an_instance_are_refused_since_they_do_not_travel(self, queue: JobQueue) -> None:
        class Send(Job):
            name = "send"

            def __init__(self, recipient: str) -> None:
                self.recipient = recipient

            def handle(self, data: object) -> None: ...

        with pytest.raises(OptionInvalid, match="recipient") as refusal:
            queue.push(Send("jo"))
        assert "data" in refusal.value.mend
        assert queue.stats().total == 0

    def test_options_are_those_of_the_moment_of_the_push_and_looked_at_each_time(self, queue: JobQueue) -> None:
        changing = define("Changing", max_retries=1, priority=1)
        for value in (1, 2):
            changing.max_retries = value
            record = queue.get(queue.push(changing))
            assert record is not None
            assert record.max_retries == value
        for option, bad in (("max_retries", True), ("priority", True), ("priority", 1.0), ("backoff", [True])):
            setattr(changing, "backoff", [1])  # noqa: B010  (what is equal to it and fine was seen before)
            queue.push(changing)
            kept = getattr(changing, option)
            setattr(changing, option, bad)
            with pytest.raises(OptionInvalid, match=option):
                queue.push(changing)
            setattr(changing, option, kept)

    def test_options_set_on_an_instance_do_travel(self, queue: JobQueue) -> None:
        job = define("Send", name="send")()
        job.queue = "urgent"
        record = queue.get(queue.push(job))
        assert record is not None
        assert record.queue == "urgent"

    @pytest.mark.parametrize("what", [None, 7, object(), print, dict, [], JobQueue])
    def test_what_is_no_job_is_refused(self, queue: JobQueue, what: object) -> None:
        with pytest.raises(OptionInvalid, match="not a job"):
            queue.push(what)

    def test_the_result_of_a_call_is_no_job_and_the_message_says_how_to_write_it(self, queue: JobQueue) -> None:
        @job(name="waiting")
        async def waiting() -> None: ...

        @job(name="plain")
        def plain(n: int) -> int:
            return n

        with warnings.catch_warnings():
            warnings.simplefilter("error")  # nobody awaits the coroutine, and nobody should
            for called in (waiting(), plain(42), {"a": 1}, None):
                for push in (queue.push, lambda what: queue.later(5, what), lambda what: queue.push_many([what])):
                    with pytest.raises(OptionInvalid, match="not a job") as refusal:
                        push(called)
                    assert "Did you call the function? Write push(my_job.bind(1))" in refusal.value.mend
            gc.collect()
        with pytest.raises(OptionInvalid, match="the delay comes first: later.60, job, data"):
            queue.later(0, 60)

    def test_a_handle_that_wants_several_values_is_told_that_data_is_one(self) -> None:
        with pytest.raises(OptionInvalid, match="handle wants email") as refusal:
            define("Send", handle=lambda self, user_id, email: None)
        assert "data is one value" in refusal.value.mend
        assert "@job" in refusal.value.mend

    def test_a_bound_job_takes_no_second_data(self, queue: JobQueue) -> None:
        class Send(Job):
            name = "send"

            def handle(self, data: object) -> None: ...

        with pytest.raises(OptionInvalid, match="data bound"):
            queue.push(Send.bind({}), {"a": 1})


class TestTypedData:
    def test_the_type_comes_from_the_base_or_from_the_annotation_of_data(self) -> None:
        class ByBase(Job[Picture]):
            name = "base"

            def handle(self, data: Picture) -> None: ...

        class ByHint(Job):
            name = "hint"

            def handle(self, data: Picture, context: JobContext) -> None: ...

        class Untyped(Job):
            name = "untyped"

            def handle(self, data: dict[str, object]) -> None: ...

        found = [as_bound(kind, None, REGISTRY).definition.data_type for kind in (ByBase, ByHint, Untyped)]
        assert found == [Picture, Picture, None]

    def test_wrong_data_is_refused_at_push_and_nothing_is_stored(self, queue: JobQueue) -> None:
        class Resize(Job[Picture]):
            name = "resize"

            def handle(self, data: Picture) -> None: ...

        wrongs: tuple[object, ...] = ({"path": 1}, {}, {"path": "x", "heigth": 1}, 3, MappingProxyType({}))
        for wrong in wrongs:
            with pytest.raises(PayloadError):
                queue.push(Resize, wrong)
        with pytest.raises(DataInvalid, match="heigth"):
            queue.push("resize", {"path": "x", "heigth": 1})
        assert queue.stats().total == 0

    def test_annotations_that_cannot_be_read_are_a_typed_error_at_push(self, queue: JobQueue) -> None:
        kind = define("Odd", name="odd", handle=_with_unreadable_annotation)
        with pytest.raises(OptionInvalid, match="TYPE_CHECKING"):
            queue.push(kind, {})
        assert queue.stats().total == 0

    def test_a_constructor_with_arguments_is_no_trouble_for_whoever_only_looks(self) -> None:
        class Demanding(Job):
            name = "demanding"

            def __init__(self, client: object) -> None:
                raise AssertionError("a worker that looks at the job must not make one")

            async def handle(self, data: Picture) -> None: ...

        definition: JobDefinition = as_bound(Demanding, None, REGISTRY).definition
        assert definition.is_async
        assert definition.data_type is Picture


def _with_unreadable_annotation(self: object, data: Missing) -> None:  # type: ignore[name-defined]  # noqa: F821  (the point)
    ...


def test_defining_a_job_opens_nothing_and_loads_no_driver() -> None:
    code = (
        "import sys, protojobs; print([m for m in sys.modules if m.startswith(('sqlalchemy', 'redis', 'protojobs_'))])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert ran.stdout.strip() == "[]"


def test_settings_are_checked_where_a_queue_is_made() -> None:
    with pytest.raises(OptionInvalid):
        Settings(max_retries=-1)
