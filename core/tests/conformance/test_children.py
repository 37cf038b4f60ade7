"""What a process of the kit's own leaves behind when it fails: an author has nothing else to go by."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from protojobs.testing.conformance.children import Children, children_on
from protojobs.testing.conformance.steps import exactly, only


@pytest.fixture
def children() -> Iterator[Children]:
    yield from children_on("nosuchstore://x")


def test_one_that_cannot_open_the_store_is_shown_with_its_exit_code_and_its_stderr(children: Children) -> None:
    child = children("store")
    assert child.ended() == []
    assert "to store ended with exit code 1. It had said: []." in child.fate()
    assert "DriverNotFound" in child.fate()


def test_one_that_ends_before_it_has_spoken_fails_the_test_that_listens_with_the_same(children: Children) -> None:
    with pytest.raises(AssertionError, match="exit code 1(.|\n)*DriverNotFound"):
        children("work").hear()


def test_other_than_so_many_things_are_shown_as_they_are() -> None:
    assert only(iter("a")) == "a"
    with pytest.raises(AssertionError, match=r"wanted 2, got 3: \['a', 'b', 'c'\]"):
        exactly(2, "abc")
