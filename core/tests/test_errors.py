"""What errors say of the values that they are about."""

from __future__ import annotations

import ast
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from enum import Enum
from pathlib import Path
from uuid import UUID

import pytest

from protojobs import Job, JobQueue, errors
from protojobs.errors import ProtojobsError, one_line, shown
from protojobs_memory import MemoryDriver

ROOT = Path(__file__).parents[2]
LINE = "x\n2030-01-01 INFO forged"


class Colour(Enum):
    RED = 1


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Secretive:
    def __repr__(self) -> str:
        return "password=hunter2"


def shared(levels: int) -> list[object]:
    """Small in memory; written out it would have no end."""
    tree: list[object] = []
    for _ in range(levels):
        tree = [tree, tree]
    return tree


def endless() -> list[object]:
    ring: list[object] = []
    ring.append(ring)
    return ring


class Anything(Job[object]):
    name = "errors.anything"

    def handle(self, data: object) -> None: ...


@pytest.fixture
def queue() -> JobQueue:
    return JobQueue(MemoryDriver())


class TestWhatIsShown:
    @pytest.mark.parametrize(
        "value",
        [
            "text",
            'it\'s "so"',
            b"bytes",
            7,
            -1.5,
            None,
            True,
            [],
            [1, "a"],
            {"a": [1, {}]},
            {1},
            timedelta(5),
            UUID(int=7),
        ],
    )
    def test_what_is_short_is_shown_as_python_writes_it(self, value: object) -> None:
        assert shown(value) == repr(value)

    @pytest.mark.parametrize(
        "value",
        [
            *("x" * 10**6, b"x" * 10**6, "\U0010ffff" * 10**5, list(range(10**5)), {n: n for n in range(10**5)}),
            *(
                shared(60),
                endless(),
                [[["x" * 10**6]]],
                10**5000,
                {10**5000: -(10**5000)},
                Hostile(),
                [Hostile()],
                Hostile,
            ),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_whatever_it_is_the_text_is_short_and_soon_there(self, value: object) -> None:
        before = time.process_time()
        assert len(shown(value)) <= 510
        assert time.process_time() - before < 1

    @pytest.mark.parametrize("value", [LINE, [LINE], {LINE: LINE}, b"a\nb", "\x1b[31m", "\u2028", "\u202e", "\ud800"])
    def test_it_is_one_line_without_control_characters(self, value: object) -> None:
        assert shown(value).isprintable()
        assert one_line(LINE) == r"x\n2030-01-01 INFO forged"

    def test_an_object_is_named_by_its_class_since_its_repr_may_hold_secrets(self) -> None:
        assert shown(Secretive()) == f"<{__name__}.Secretive object>"
        assert shown([Colour.RED, len, ValueError("x\n")]) == r"[Colour.RED, <function len>, ValueError: x\n]"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda queue: queue.push(Hostile()),
        lambda queue: queue.push(LINE),
        lambda queue: queue.push(Anything, {10**5000: 1}),
        lambda queue: queue.push(Anything, {LINE: {7: 1}}),
        lambda queue: queue.push(Anything, {"k" * 10**5: {7: 1}}),
        lambda queue: queue.push(Anything, {LINE: float("nan")}),
        lambda queue: queue.push(Anything, {}, id="x" * 10**5),
        lambda queue: queue.push(Anything, {}, id=10**5000),
        lambda queue: queue.later("x" * 10**5, Anything),
        lambda queue: queue.later(10**5000, Anything),
        lambda queue: queue.push(Anything().with_priority(10**5000)),
        lambda queue: queue.push(Anything().retries(10**5000)),
        lambda queue: queue.push(Anything().on_queue("x" * 10**5)),
        lambda queue: queue.find(Hostile()),
        lambda queue: JobQueue(MemoryDriver(), {"max_retries": 10**5000}),
        lambda queue: JobQueue(MemoryDriver(), {"executor": "x" * 10**5}),
        lambda queue: JobQueue(MemoryDriver(), {"timezone": LINE * 1000}),
        lambda queue: JobQueue(MemoryDriver(), {LINE: 1}),
        lambda queue: JobQueue(MemoryDriver(), {"x" * 10**5: 1}),
    ],
)
def test_an_error_about_a_hostile_value_is_typed_short_and_on_one_line(
    wrong: Callable[[JobQueue], object], queue: JobQueue
) -> None:
    with pytest.raises(ProtojobsError) as caught:
        wrong(queue)
    assert len(str(caught.value)) < 1_500
    assert str(caught.value).isprintable()


def messages(tree: ast.AST) -> Iterator[ast.FormattedValue]:
    """The parts of texts that stand in a call of one of our errors."""
    for call in ast.walk(tree):
        name = getattr(getattr(call, "func", None), "id", "")
        if name in errors.__all__ and name[0].isupper():
            yield from (part for part in ast.walk(call) if isinstance(part, ast.FormattedValue))


def test_no_error_echoes_a_value_by_its_own_repr() -> None:
    files = [file for part in ("core", "drivers/*", "contrib/*") for file in ROOT.glob(f"{part}/src/**/*.py")]
    assert len(files) > 200
    wrong = [
        f"{file.relative_to(ROOT)}:{part.lineno}"
        for file in files
        for part in messages(ast.parse(file.read_text()))
        if part.conversion == ord("r")
    ]
    assert not wrong, "write {shown(value)}, not {value!r}: " + ", ".join(wrong)
