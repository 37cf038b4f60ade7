"""`DataCleanupJob`: delete what is old, files below a folder and rows of a table."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, ClassVar, TypeAlias

import msgspec
import sqlalchemy as sa

from protojobs import Job, JobContext, Snooze
from protojobs_examples._folders import PathRefused, inside
from protojobs_examples._old_files import FilesDone, delete_old_files
from protojobs_examples._old_rows import DatabaseUnavailable, RowsDone, TableRefused, delete_old_rows

__all__ = ["Cleanup", "CleanupRefused", "DataCleanupJob", "DatabaseUnavailable", "OldFiles", "OldRows", "TableRefused"]

FILES_PER_RUN = 100_000
RESERVE_MAX_S = 10.0  # with less than this of its timeout left a run ends by itself, and goes on in the next one
_GO_ON_IN_S = 1.0

Days = Annotated[float, msgspec.Meta(ge=0, le=36_500)]
Identifier = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
TableName = Annotated[str, msgspec.Meta(pattern=r"^([A-Za-z_][A-Za-z0-9_]{0,62}\.)?[A-Za-z_][A-Za-z0-9_]{0,62}$")]


class OldFiles(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="files", tag_field="clean"):
    """Regular files of `folder` whose name fits `pattern`, last changed more than `older_than_days` ago."""

    folder: str
    pattern: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    older_than_days: Days
    recursive: bool = False


class OldRows(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="rows", tag_field="clean"):
    """Rows of `table` whose `column` lies more than `older_than_days` back, deleted `batch` at a time."""

    table: TableName
    column: Identifier
    older_than_days: Days
    batch: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 500


class Cleanup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to clean, in this order. With `dry_run` it is counted, and nothing is deleted."""

    what: Annotated[list[OldFiles | OldRows], msgspec.Meta(min_length=1, max_length=50)]
    dry_run: bool = False


class CleanupRefused(Exception):
    """The data asks for what this worker may not delete, or what is not there. Not retried."""


Answer: TypeAlias = dict[str, object]


class DataCleanupJob(Job[Cleanup]):
    """Delete old files and old rows, and say how many.

        queue.push(DataCleanupJob, {"what": [
            {"clean": "files", "folder": "/var/cache/shop", "pattern": "*.tmp", "older_than_days": 7},
            {"clean": "rows", "table": "visits", "column": "seen_at", "older_than_days": 90},
        ]})

    *What may be deleted is the worker's configuration*: CLEANUP_FOLDERS (separated as in PATH), CLEANUP_DATABASE_URL
    and CLEANUP_COLUMNS (`visits.seen_at,sessions.used_at`) in its environment, or the class attributes of a subclass.
    Who can write to the job store can ask for a clean-up, of these and of nothing else.

    *Idempotent*: what is gone stays gone, so a second run, or one that takes over from a dead worker, deletes the rest.

    *Bounded*: rows go in batches of one short transaction each. A run that nears its timeout returns `Snooze`, which
    costs no attempt, and the next run goes on: a million rows are no failure, only several runs.
    """

    name = "examples.data_cleanup"
    queue = "maintenance"
    max_retries = 3
    retry_delay = 60
    timeout = 300
    priority = -10
    retry_on = (OSError, DatabaseUnavailable)

    folders: ClassVar[Sequence[Path] | None] = None
    database_url: ClassVar[str | None] = None
    columns: ClassVar[Sequence[str] | None] = None

    def handle(self, data: Cleanup, ctx: JobContext) -> Answer | Snooze:
        """Do it; the result counts files, bytes and rows, of this run."""
        files = size = rows = 0
        stop = _stop_for(ctx)
        is_whole = True
        for done, step in enumerate(data.what, start=1):
            if isinstance(step, OldFiles):
                gone = self._files(step, data.dry_run, stop)
                files, size, has_more = files + gone.files, size + gone.bytes, gone.has_more
            else:
                deleted = self._rows(step, data.dry_run, stop)
                rows, has_more = rows + deleted.rows, deleted.has_more
            if has_more and not data.dry_run:  # counting again would not get further
                ctx.log.info("so far %d files and %d rows; going on in the next run", files, rows)
                return Snooze(_GO_ON_IN_S)
            is_whole = is_whole and not has_more
            ctx.progress(done / len(data.what))
        return {"files": files, "bytes": size, "rows": rows, "dry_run": data.dry_run, "is_whole": is_whole}

    def _files(self, step: OldFiles, dry_run: bool, stop: Callable[[], bool]) -> FilesDone:
        before = time.time() - step.older_than_days * 86_400
        return delete_old_files(
            self._allowed_folder(step.folder),
            step.pattern,
            recursive=step.recursive,
            before=before,
            limit=FILES_PER_RUN,
            dry_run=dry_run,
            stop=stop,
        )

    def _allowed_folder(self, wanted: str) -> Path:
        """The folder, with symlinks followed, if it is one that this worker may clean or lies below one."""
        from_environment = os.environ.get("CLEANUP_FOLDERS", "").split(os.pathsep)
        allowed = self.folders if self.folders is not None else [Path(name) for name in from_environment if name]
        for folder in allowed:
            with suppress(PathRefused):
                found = inside(folder, wanted)
                if not found.is_dir():
                    raise CleanupRefused(f"there is no folder {found}")
                return found
        raise CleanupRefused(f"this worker may not clean {wanted}: it may clean {[str(f) for f in allowed]}")

    def _rows(self, step: OldRows, dry_run: bool, stop: Callable[[], bool]) -> RowsDone:
        columns = self.columns if self.columns is not None else os.environ.get("CLEANUP_COLUMNS", "").split(",")
        url = self.database_url or os.environ.get("CLEANUP_DATABASE_URL")
        if not url or f"{step.table}.{step.column}" not in [column.strip() for column in columns]:
            raise CleanupRefused(f"this worker may not clean {step.table} by {step.column}")
        engine = sa.create_engine(url, poolclass=sa.NullPool)  # one run, a connection or two: nothing to keep
        before = datetime.now(UTC) - timedelta(days=step.older_than_days)
        return delete_old_rows(
            engine, step.table, step.column, before=before, batch=step.batch, dry_run=dry_run, stop=stop
        )


def _stop_for(ctx: JobContext) -> Callable[[], bool]:
    """Whether to end the run: somebody cancelled it, or the last fifth (at most 10 s) of its timeout has begun."""
    reserve = min(RESERVE_MAX_S, (ctx.deadline_s or 0.0) / 5)

    def stop() -> bool:
        left = ctx.deadline_s
        return ctx.cancelled() or (left is not None and left < reserve)

    return stop
