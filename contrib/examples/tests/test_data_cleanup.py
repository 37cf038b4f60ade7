"""DataCleanupJob on real files and on a real SQLite database."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from protojobs import JobQueue
from protojobs.errors import DataInvalid
from protojobs_examples import data_cleanup
from protojobs_examples._old_files import delete_old_files
from protojobs_examples.data_cleanup import DataCleanupJob


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("CLEANUP_FOLDERS", str(folder))
    return folder


def make(path: Path, days_old: float = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("12345")
    then = time.time() - days_old * 86_400
    os.utime(path, (then, then))
    return path


def files(folder: Path, **changes: object) -> dict[str, object]:
    what = {"clean": "files", "folder": str(folder), "pattern": "*.tmp", "older_than_days": 7, **changes}
    return {"what": [what]}


class TestFiles:
    def test_old_ones_go_and_young_ones_stay(self, run: Callable, folder: Path) -> None:
        make(folder / "old.tmp", 8), make(folder / "young.tmp", 6), make(folder / "old.txt", 8)
        result = run(DataCleanupJob, files(folder)).result
        assert (result["files"], result["bytes"]) == (1, 5)
        assert sorted(path.name for path in folder.iterdir()) == ["old.txt", "young.tmp"]

    def test_subfolders_only_if_asked_for(self, run: Callable, folder: Path) -> None:
        deep = make(folder / "a" / "b" / "old.tmp", 8)
        assert run(DataCleanupJob, files(folder)).result["files"] == 0
        assert deep.exists()
        assert run(DataCleanupJob, files(folder, recursive=True)).result["files"] == 1
        assert not deep.exists() and deep.parent.is_dir()

    def test_a_second_run_finds_nothing_to_do(self, run: Callable, folder: Path) -> None:
        make(folder / "old.tmp", 8)
        assert [run(DataCleanupJob, files(folder)).result["files"] for _ in range(2)] == [1, 0]

    def test_a_dry_run_counts_and_deletes_nothing(self, run: Callable, folder: Path) -> None:
        make(folder / "old.tmp", 8)
        result = run(DataCleanupJob, {**files(folder), "dry_run": True}).result
        assert (result["files"], result["dry_run"]) == (1, True)
        assert (folder / "old.tmp").exists()

    def test_it_goes_on_in_further_runs_without_spending_attempts(
        self, queue: JobQueue, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(data_cleanup, "FILES_PER_RUN", 2)
        monkeypatch.setattr(data_cleanup, "_GO_ON_IN_S", 0.0)
        for n in range(5):
            make(folder / f"{n}.tmp", 8)
        job_id = queue.push(DataCleanupJob, files(folder))
        report = queue.work("maintenance", 20)
        assert (report.runs, list(folder.iterdir())) == (3, [])
        record = queue.get(job_id)
        assert record is not None and (record.attempts, str(record.status)) == (1, "completed")

    def test_a_dry_run_over_the_bound_ends_and_says_that_it_is_not_whole(
        self, run: Callable, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(data_cleanup, "FILES_PER_RUN", 2)
        for n in range(5):
            make(folder / f"{n}.tmp", 8)
        result = run(DataCleanupJob, {**files(folder), "dry_run": True}).result
        assert (result["files"], result["is_whole"]) == (2, False)


class TestWhatTheFilesJobLeavesAlone:
    def test_links_out_of_the_folder_and_what_is_behind_them(self, run: Callable, folder: Path, tmp_path: Path) -> None:
        outside = make(tmp_path / "outside" / "precious.tmp", 99)
        (folder / "link.tmp").symlink_to(outside)
        (folder / "linked").symlink_to(outside.parent)
        assert run(DataCleanupJob, files(folder, recursive=True)).result["files"] == 0
        assert outside.exists() and (folder / "link.tmp").is_symlink()

    def test_folders_and_pipes(self, run: Callable, folder: Path) -> None:
        (folder / "folder.tmp").mkdir()
        os.mkfifo(folder / "pipe.tmp")
        then = time.time() - 9e6
        for name in ("folder.tmp", "pipe.tmp"):
            os.utime(folder / name, (then, then))
        assert run(DataCleanupJob, files(folder)).result["files"] == 0

    @pytest.mark.parametrize("where", ["..", "/", "/etc", "../outside", "link"])
    def test_folders_that_the_worker_was_not_given(
        self, run: Callable, folder: Path, tmp_path: Path, where: str
    ) -> None:
        outside = make(tmp_path / "outside" / "precious.tmp", 99)
        (folder / "link").symlink_to(outside.parent)
        job = run(DataCleanupJob, {"what": [{**files(folder, recursive=True)["what"][0], "folder": where}]})
        assert (job.status, job.record.attempts) == ("failed", 1)
        assert "may not clean" in job.failed.exception and outside.exists()

    def test_everything_where_it_was_given_none(self, run: Callable, folder: Path, monkeypatch) -> None:
        monkeypatch.setenv("CLEANUP_FOLDERS", "")
        make(folder / "old.tmp", 8)
        assert run(DataCleanupJob, files(folder)).status == "failed"
        assert (folder / "old.tmp").exists()

    def test_a_folder_that_is_not_there_fails_at_once(self, run: Callable, folder: Path) -> None:
        job = run(DataCleanupJob, files(folder / "no"))
        assert (job.record.attempts, "there is no folder" in job.failed.exception) == (1, True)

    def test_a_folder_swapped_for_a_link_while_it_runs(self, folder: Path, tmp_path: Path) -> None:
        outside = make(tmp_path / "outside" / "x.tmp", 99)
        inner = make(folder / "inner" / "x.tmp", 99).parent

        def swap_then_go_on() -> bool:
            inner.rename(tmp_path / "moved")
            inner.symlink_to(outside.parent)
            return False

        done = delete_old_files(
            folder, "*.tmp", recursive=True, before=time.time(), limit=9, dry_run=False, stop=swap_then_go_on
        )
        assert done.files == 1
        assert outside.exists(), "the deletion went through the open folder, not through its name"
        assert not (tmp_path / "moved" / "x.tmp").exists()


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> sa.Engine:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    monkeypatch.setenv("CLEANUP_DATABASE_URL", url)
    columns = "visits.seen_at, visits.day, visits.url, pairs.at, keyless.at, visits.no, missing.at"
    monkeypatch.setenv("CLEANUP_COLUMNS", columns)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for ddl in (
            "CREATE TABLE visits (id INTEGER PRIMARY KEY, seen_at DATETIME, day DATE, url TEXT)",
            "CREATE TABLE pairs (a INTEGER, b INTEGER, at TIMESTAMP, PRIMARY KEY (a, b))",
            "CREATE TABLE keyless (at DATETIME)",
            "CREATE TABLE secrets (id INTEGER PRIMARY KEY, at DATETIME)",
        ):
            connection.execute(sa.text(ddl))
    return engine


def fill(engine: sa.Engine, table: str, column: str, ages: list[float | None], **more: object) -> None:
    found = sa.Table(table, sa.MetaData(), autoload_with=engine)
    now = datetime.now(UTC).replace(tzinfo=None)
    times = [None if age is None else now - timedelta(days=age) for age in ages]
    is_date = isinstance(found.c[column].type, sa.Date)
    rows = [{column: then.date() if is_date and then else then} for then in times]
    for number, row in enumerate(rows):
        row |= {key: value(number) for key, value in more.items()}
    with engine.begin() as connection:
        connection.execute(sa.insert(found), rows)


def count(engine: sa.Engine, table: str) -> int:
    with engine.connect() as connection:
        return connection.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar_one()


def rows(table: str = "visits", column: str = "seen_at", **changes: object) -> dict[str, object]:
    return {"what": [{"clean": "rows", "table": table, "column": column, "older_than_days": 30, **changes}]}


class TestRows:
    def test_old_ones_go_and_young_and_empty_ones_stay(self, run: Callable, database: sa.Engine) -> None:
        fill(database, "visits", "seen_at", [31, 400, 29, 0, None])
        assert run(DataCleanupJob, rows()).result["rows"] == 2
        assert count(database, "visits") == 3

    def test_they_go_in_batches(self, run: Callable, database: sa.Engine) -> None:
        fill(database, "visits", "seen_at", [31] * 25)
        commits: list[int] = []

        def count_it(connection: sa.Connection) -> None:
            commits.append(1)

        sa.event.listen(sa.Engine, "commit", count_it)
        try:
            assert run(DataCleanupJob, rows(batch=10)).result["rows"] == 25
        finally:
            sa.event.remove(sa.Engine, "commit", count_it)
        assert len(commits) == 3
        assert count(database, "visits") == 0

    def test_by_a_date_column(self, run: Callable, database: sa.Engine) -> None:
        fill(database, "visits", "day", [31, 2])
        assert run(DataCleanupJob, rows(column="day")).result["rows"] == 1

    def test_with_a_key_of_two_columns(self, run: Callable, database: sa.Engine) -> None:
        fill(database, "pairs", "at", [31] * 7 + [1], a=lambda n: n % 2, b=lambda n: n)
        assert run(DataCleanupJob, rows("pairs", "at", batch=3)).result["rows"] == 7
        assert count(database, "pairs") == 1

    def test_a_dry_run_counts_and_deletes_nothing(self, run: Callable, database: sa.Engine) -> None:
        fill(database, "visits", "seen_at", [31, 1])
        assert run(DataCleanupJob, {**rows(), "dry_run": True}).result["rows"] == 1
        assert count(database, "visits") == 2

    def test_a_locked_database_is_tried_again(self, run: Callable, database: sa.Engine, monkeypatch) -> None:
        monkeypatch.setenv("CLEANUP_DATABASE_URL", f"{database.url}?timeout=0.05")
        fill(database, "visits", "seen_at", [31])
        with database.connect() as other:
            other.exec_driver_sql("BEGIN EXCLUSIVE")
            job = run(DataCleanupJob().retry_after(0).retries(1), rows())
        assert (job.status, job.record.attempts) == ("failed", 2)
        assert "DatabaseUnavailable" in job.failed.exception


class TestWhatTheRowsJobRefuses:
    @pytest.mark.parametrize(
        ("table", "column", "why"),
        [
            ("secrets", "at", "may not clean"),
            ("visits", "id", "may not clean"),
            ("missing", "at", "no table"),
            ("visits", "no", "no column"),
            ("visits", "url", "not a date"),
            ("keyless", "at", "no primary key"),
        ],
    )
    def test_at_once(self, run: Callable, database: sa.Engine, table: str, column: str, why: str) -> None:
        fill(database, "visits", "seen_at", [400])
        fill(database, "secrets", "at", [400])
        fill(database, "keyless", "at", [400])
        job = run(DataCleanupJob, rows(table, column))
        assert (job.status, job.record.attempts) == ("failed", 1)
        assert why in job.failed.exception
        assert [count(database, name) for name in ("visits", "secrets", "keyless")] == [1, 1, 1]

    def test_everything_without_a_database(self, run: Callable, database: sa.Engine, monkeypatch) -> None:
        monkeypatch.delenv("CLEANUP_DATABASE_URL")
        assert "may not clean" in run(DataCleanupJob, rows()).failed.exception


class TestBadInputIsRefusedByPush:
    @pytest.mark.parametrize(
        "data",
        [
            {},
            {"what": []},
            {"what": [{"clean": "everything"}]},
            files(Path("x"), older_than_days=-1),
            files(Path("x"), older_than_days="7"),
            files(Path("x"), pattern=""),
            files(Path("x"), recursiv=True),
            rows("visits; DROP TABLE visits"),
            rows('visits"--'),
            rows(column="seen_at OR 1=1"),
            rows(column=""),
            rows("a.b.c"),
            rows(batch=0),
            rows(batch=10_001),
            {**rows(), "dry_run": "yes"},
        ],
    )
    def test_and_nothing_is_stored(self, queue: JobQueue, data: object) -> None:
        with pytest.raises(DataInvalid):
            queue.push(DataCleanupJob, data)
        assert queue.stats().total == 0
