"""The index against a plain sorted list, with blocks so small that every edge is met."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protojobs_memory import sorted_keys
from protojobs_memory.sorted_keys import SortedKeys

keys = st.text("abcdef", min_size=1, max_size=3)


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    usual, sorted_keys.BLOCK_KEYS = sorted_keys.BLOCK_KEYS, 2
    yield
    sorted_keys.BLOCK_KEYS = usual


@given(steps=st.lists(keys, max_size=60), bound=keys)
def test_it_tells_what_a_sorted_list_would(steps, bound):
    index, plain = SortedKeys(), []
    for key in steps:  # a key that is there goes, another comes
        if key in plain:
            plain.remove(key)
            index.remove(key)
        else:
            plain.append(key)
            index.add(key)
    plain.sort()
    assert list(index) == plain
    assert (len(index), bool(index), index.first()) == (len(plain), bool(plain), plain[0] if plain else None)
    assert (bound in index) is (bound in plain)
    assert list(index.below(bound)) == [key for key in plain if key < bound]
    assert list(index.above(bound)) == [key for key in plain if key > bound]
    assert list(index.downwards(bound)) == [key for key in reversed(plain) if key < bound]
    assert list(index.downwards()) == plain[::-1]
    assert index.count_below(bound) == sum(key < bound for key in plain)
