"""`protojobs prune`, and what is not migrated."""

from __future__ import annotations

import pytest


class TestPrune:
    @pytest.fixture
    def finished(self, push, type_) -> None:
        push("add", '{"a": 1, "b": 2}')
        push("broken")
        type_("worker", "math", "default", "--app", "shop", "--stop-when-empty")

    def test_keeps_what_is_young(self, type_, finished) -> None:
        assert type_("prune").lines[-1] == ["total", "0"]

    def test_an_age_names_what_goes_and_is_obeyed(self, type_, finished, queue) -> None:
        assert type_("prune", "--completed-older-than", "0s").lines == [
            ["completed", "1"],
            ["cancelled", "0"],
            ["failed", "0"],
            ["total", "1"],
        ]
        assert queue.stats().failed == 1
        assert type_("prune", "--failed-older-than", "0", "--json").document["item"]["failed"] == 1
        assert queue.stats().total == 0

    def test_an_age_that_is_none(self, type_, url) -> None:
        typed = type_("prune", "--completed-older-than", "7 moons")
        assert typed.code == 2
        assert "Write it like 30s, 10m, 2h, 7d" in typed.err


@pytest.mark.parametrize(
    "words", [("stats",), ("worker", "--app", "shop"), ("push", "broken", "--app", "shop"), ("jobs", "list")]
)
def test_what_is_not_migrated_says_so(type_, folder, words) -> None:
    typed = type_(*words, "--url", "sqlite:///fresh.db")
    assert (typed.code, typed.out) == (8, "")
    assert "There is no database" in typed.err
    assert "try: protojobs migrate --url sqlite:///fresh.db" in typed.err
