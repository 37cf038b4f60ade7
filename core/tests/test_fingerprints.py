"""Failures with one cause have one mark, whatever varies in them; different causes have different ones."""

from __future__ import annotations

import json

import pytest

from protojobs.jobs.fingerprints import fingerprint, last_line, template


def raised(make: object, *arguments: object) -> BaseException:
    try:
        make(*arguments)  # type: ignore[operator]
    except BaseException as error:
        return error
    raise AssertionError("it did not raise")


def charge(order: int) -> None:
    raise ValueError(f"order {order} of 'jo@example.com' has no price")


def refund(order: int) -> None:
    raise ValueError(f"order {order} of 'jo@example.com' has no price")


def read(text: str) -> object:
    return json.loads(text)


def endless(depth: int) -> None:
    endless(depth + 1)


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Leaving(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class Shapeless(type):
    def __getattribute__(cls, name: str) -> object:
        if name == "__qualname__":
            raise RuntimeError("no name")
        return super().__getattribute__(name)


class Nameless(Exception, metaclass=Shapeless):
    pass


class Untraceable(Exception):
    @property
    def __traceback__(self) -> None:  # type: ignore[override]
        raise TypeError


def keep_silent() -> None:
    raise Silent


def test_numbers_and_quoted_texts_do_not_part_a_group() -> None:
    first, second = raised(charge, 41), raised(charge, 1_000_002)
    assert fingerprint("charge", first) == fingerprint("charge", second)
    assert len(fingerprint("charge", first)) == 16
    int(fingerprint("charge", first), 16)


def test_job_class_function_and_words_part_them() -> None:
    error = raised(charge, 1)
    marks = {
        fingerprint("charge", error),
        fingerprint("bill", error),
        fingerprint("charge", raised(refund, 1)),
        fingerprint("charge", raised(lambda: charge("?"))),  # type: ignore[arg-type]
        fingerprint("charge", KeyError(str(error))),
    }
    assert len(marks) == 5


def test_the_place_is_the_applications_own_code_and_not_the_librarys() -> None:
    deep = raised(read, "{")
    assert deep.__traceback__ is not None
    elsewhere = raised(lambda: json.loads("{"))
    assert fingerprint("j", deep) != fingerprint("j", elsewhere)
    assert fingerprint("j", deep) == fingerprint("j", raised(read, "[{"[1:]))


def test_a_line_further_down_is_the_same_place() -> None:
    spaces: dict[str, object] = {"__name__": "shop"}
    exec("def f():\n    raise ValueError('x')", spaces)
    later: dict[str, object] = {"__name__": "shop"}
    exec("\n\n\ndef f():\n    raise ValueError('x')", later)
    assert fingerprint("j", raised(spaces["f"])) == fingerprint("j", raised(later["f"]))


def test_what_cannot_be_told_is_marked_all_the_same() -> None:
    assert fingerprint("j", raised(keep_silent)) == fingerprint("j", raised(keep_silent))
    assert len({fingerprint("j", one) for one in (Untraceable(), Silent(), Untraceable())}) == 2
    assert len({fingerprint("j", one) for one in (Leaving(), Nameless())}) == 2
    assert fingerprint("j", raised(endless, 0)) == fingerprint("j", raised(endless, 0))
    assert len(fingerprint("\ud800", ValueError("\ud800" * 10))) == 16


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("job 01890000-0000-7000-8000-00000000000a is gone", "job <uuid> is gone"),
        ("at 0x7f3a, deadbeef01 and 12.5 of 1,000", "at <hex>, <hex> and <n> of <n>"),
        ('no key \'user."id\' in "it"', "no key <text> in <text>"),
        ("don't  panic\nnow", "don't panic now"),
        ("", ""),
    ],
)
def test_a_template_leaves_what_does_not_vary(message: str, told: str) -> None:
    assert template(message) == told


def test_a_long_message_is_cut_before_it_is_looked_at() -> None:
    assert len(template("x" * 10**7)) == 1_000


def test_a_group_is_known_by_the_first_exception_in_it_too() -> None:
    def mark(inner: Exception) -> str:
        return fingerprint("job", ExceptionGroup("unhandled errors in a TaskGroup", [inner]))

    assert mark(ValueError("order 7")) == mark(ValueError("order 8"))
    assert mark(ValueError("order 7")) != mark(KeyError("order 7"))


def test_the_last_line_that_says_something() -> None:
    assert last_line("Traceback\n  x\nValueError: no\n\n") == "ValueError: no"
    assert last_line("") == ""
