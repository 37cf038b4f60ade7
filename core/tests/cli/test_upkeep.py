"""`protojobs prune` and `migrate`."""

from __future__ import annotations

import re

import pytest

from protojobs import create_driver


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


class TestMigrate:
    @pytest.fixture
    def fresh(self, folder) -> str:
        return f"sqlite:///{folder / 'fresh.db'}"

    def test_prints_what_was_run_and_then_nothing_more(self, type_, fresh) -> None:
        first = type_("migrate", "--url", fresh)
        assert first.code == 0
        assert all(line[1] == "up" for line in first.lines)
        assert first.lines
        second = type_("migrate", "--url", fresh)
        assert (second.code, second.out) == (0, "")
        assert "up to date already" in second.err
        assert type_("stats", "--url", fresh).code == 0

    def test_in_json(self, type_, fresh) -> None:
        document = type_("migrate", "--url", fresh, "--json").document
        assert document["schema"] == "protojobs/migrate@1"
        assert {item["direction"] for item in document["items"]} == {"up"}

    def test_sql_is_printed_and_not_run(self, type_, fresh) -> None:
        typed = type_("migrate", "--sql", "--url", fresh)
        assert re.search(r"CREATE TABLE (IF NOT EXISTS )?jobs", typed.out)
        assert type_("stats", "--url", fresh).code == 8

    def test_down_counts_and_refuses_without_a_yes(self, type_, push, queue) -> None:
        push("broken")
        typed = type_("migrate", "--down")
        assert (typed.code, typed.out) == (2, "")
        assert "with 1 job in them" in typed.err
        assert queue.stats().total == 1

    def test_down_with_a_yes(self, type_, push) -> None:
        push("broken")
        assert type_("migrate", "--down", "--yes").code == 0
        assert type_("stats").code == 8
        assert type_("migrate", "--down", "--yes").code == 0

    def test_a_store_without_tables_is_set_up(self, type_) -> None:
        typed = type_("migrate", "--url", "memory://migrated")
        assert (typed.code, typed.out) == (0, "")
        assert "ready" in typed.err

    def test_and_has_no_sql(self, type_) -> None:
        assert type_("migrate", "--sql", "--url", "memory://migrated").code == 7

    def test_and_is_emptied_by_down(self, type_) -> None:
        create_driver("memory://emptied").pause("somewhere")
        assert type_("migrate", "--down", "--yes", "--url", "memory://emptied").code == 0
        assert create_driver("memory://emptied").queues() == []


@pytest.mark.parametrize(
    "words", [("stats",), ("worker", "--app", "shop"), ("push", "broken", "--app", "shop"), ("jobs", "list")]
)
def test_what_is_not_migrated_says_so(type_, folder, words) -> None:
    typed = type_(*words, "--url", "sqlite:///fresh.db")
    assert (typed.code, typed.out) == (8, "")
    assert "There is no database" in typed.err
    assert "try: protojobs migrate --url sqlite:///fresh.db" in typed.err
