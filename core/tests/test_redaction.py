"""Edited data gets its hidden fields back: each its own, or it is refused."""

from __future__ import annotations

import msgspec
import pytest

from protojobs.errors import DataInvalid
from protojobs.inspector.redaction import HIDDEN, Redaction

REDACTION = Redaction(["token"])
A, B, C = ({"url": name, "token": f"secret of {name}"} for name in "abc")
B_TOO = {"url": "b", "token": "another"}


def seen(value: object) -> object:
    """As the viewer gets it."""
    return msgspec.json.decode(REDACTION.text(msgspec.json.encode(value).decode()))


@pytest.mark.parametrize(
    ("original", "edited"),
    [
        ([A, B], [A, B]),
        ([A, B], [B, A]),
        ([A, B], [B]),
        ([A, B], [A, B, B]),
        ([A, 1, B], ["x", B, A]),
        ([B, B_TOO, A], [B, B_TOO]),
        ([B, B_TOO, 1], [B, B_TOO, 2]),
        ([B, B, A], [A, B]),
        ([[A, [B]], C], [C, [A, [B]]]),
        ([[A], [B]], [[B], [A]]),
        ([[B, B_TOO], A], [A, [B, B_TOO]]),
        ([{"in": [A, B]}], [{"in": [A, B]}]),
        ([A], []),
        ([], [1, {"url": "a"}]),
    ],
)
def test_an_element_of_a_list_gets_its_own_wherever_it_stands(original: object, edited: object) -> None:
    assert REDACTION.restored({"to": seen(edited)}, {"to": original}) == {"to": edited}


def test_keys_in_another_order_are_the_same_element() -> None:
    assert REDACTION.restored([{"token": HIDDEN, "url": "b"}], [A, B]) == [{"token": B["token"], "url": "b"}]


@pytest.mark.parametrize(
    ("original", "edited"),
    [
        ([A, B], [A, C]),
        ([A, B], [B, C]),
        ([A], [C]),
        ([B, B_TOO], [B]),
        ([B, B_TOO, A], [A, B, B_TOO]),
        ([B, B_TOO, A], [B_TOO, A, C]),
        (A, [A]),
        ([A], A),
        ([[A, B]], [A, B]),
        ([[A, B], 1], [[B, A], 1]),
    ],
)
def test_where_it_belongs_cannot_be_told(original: object, edited: object) -> None:
    with pytest.raises(DataInvalid, match=r"\$\.to\.token is hidden from you"):
        REDACTION.restored({"to": seen(edited)}, {"to": original})


def test_a_value_that_is_written_takes_no_old_one() -> None:
    mine = {"url": "c", "token": "mine"}
    assert REDACTION.restored([seen(B), mine], [A, B]) == [B, mine]
    assert REDACTION.restored([{**A, "token": "new"}, seen(B)], [A, B]) == [{**A, "token": "new"}, B]
    listed = {"url": "d", "token": ["x", "y"]}
    assert REDACTION.restored([{**listed, "token": ["z"]}], [listed]) == [{**listed, "token": ["z"]}]
