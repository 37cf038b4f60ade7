"""`protojobs migrate`: up, back and away, and the check for scripts."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from sqlalchemy import text

from protojobs import create_driver
from protojobs_sqlalchemy import SQLAlchemyDriver
from protojobs_sqlalchemy.migrations import HEAD, REVISIONS


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


@pytest.fixture
def tables(url: str) -> Callable[[str], None]:
    """Runs a statement on the migrated store that PROTOJOBS_URL names."""

    def run(statement: str) -> None:
        driver = SQLAlchemyDriver(url)
        with driver.engine.begin() as conn:
            conn.execute(text(statement))
        driver.close()

    return run


class TestCheck:
    def test_tables_that_fit(self, type_, url) -> None:
        typed = type_("migrate", "--check")
        assert (typed.code, typed.out) == (0, "")
        assert "this release can work on it" in typed.err
        assert type_("migrate", "--check", "--json").document == {
            "schema": "protojobs/migrate.check@1",
            "items": [],
            "next": None,
        }

    def test_tables_that_are_behind_are_named_and_left_alone(self, type_, url) -> None:
        assert type_("migrate", "--to", REVISIONS[-2]).code == 0
        for _ in range(2):
            typed = type_("migrate", "--check")
            assert (typed.code, typed.lines) == (8, [[HEAD]])
            assert f"is behind this release by 1 revision: {HEAD}." in typed.err
            assert "try: protojobs migrate\n" in typed.err
        assert type_("migrate").lines == [[HEAD, "up"]]
        assert type_("migrate", "--check").code == 0

    def test_a_store_that_is_not_there_is_not_made(self, type_, folder) -> None:
        typed = type_("migrate", "--check", "--url", "sqlite:///none.db")
        assert (typed.code, typed.out) == (8, "")
        assert "try: protojobs migrate --url sqlite:///none.db" in typed.err
        assert not (folder / "none.db").exists()

    def test_an_empty_database_lacks_everything(self, type_, folder) -> None:
        (folder / "empty.db").touch()
        typed = type_("migrate", "--check", "--url", "sqlite:///empty.db")
        assert (typed.code, typed.lines) == (8, [[revision] for revision in REVISIONS])

    def test_tables_of_a_newer_release_that_say_so_fit(self, type_, tables) -> None:
        tables("UPDATE protojobs_schema_version SET version_num = '9999'")
        assert type_("migrate", "--check").code == 0

    def test_tables_of_a_newer_release_that_do_not_are_refused_with_the_steps(self, type_, tables) -> None:
        tables("UPDATE protojobs_schema_version SET version_num = '9999', readable_from = '9998'")
        typed = type_("migrate", "--check")
        assert typed.code == 8
        assert "only a release that knows 9998 can work on them" in typed.err
        assert f"protojobs migrate --to {HEAD}" in typed.err
        assert "Upgrade protojobs-sqlalchemy here too" in typed.err

    def test_a_store_without_tables_fits_as_it_is(self, type_) -> None:
        assert type_("migrate", "--check", "--url", "memory://checked").code == 0


class TestTo:
    def test_a_step_back_that_loses_nothing_and_up_again(self, type_, push, queue) -> None:
        push("broken")
        back = type_("migrate", "--to", REVISIONS[-2])
        assert (back.code, back.lines) == (0, [[HEAD, "down"]])
        assert f"of version {REVISIONS[-2]}." in back.err
        assert type_("stats").code == 8
        assert type_("migrate", "--to", REVISIONS[-2], "--json").document["items"] == []
        assert type_("migrate", "--to", HEAD).lines == [[HEAD, "up"]]
        assert queue.stats().pending == 1

    def test_a_step_back_that_would_lose_something_is_refused_with_the_reason(self, type_, url) -> None:
        typed = type_("migrate", "--to", "0001")
        assert (typed.code, typed.out) == (2, "")
        assert "The step back from 0003 to 0002 would lose the completed jobs in the archive" in typed.err
        assert "Nothing was done." in typed.err
        assert type_("migrate", "--check").code == 0

    def test_a_version_that_is_none(self, type_, url) -> None:
        typed = type_("migrate", "--to", "4711")
        assert typed.code == 2
        assert f"This release knows {', '.join(REVISIONS)}." in typed.err

    def test_a_store_without_versions(self, type_) -> None:
        assert type_("migrate", "--to", HEAD, "--url", "memory://to").code == 7

    @pytest.mark.parametrize(
        "words", [("--check", "--down"), ("--check", "--sql"), ("--check", "--to", HEAD), ("--to", HEAD, "--down")]
    )
    def test_what_contradicts_itself(self, type_, url, words) -> None:
        typed = type_("migrate", *words)
        assert (typed.code, typed.out) == (2, "")
        assert "stand alone" in typed.err
