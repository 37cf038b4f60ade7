"""Act on all jobs that match a query: count and show them, ask, act with a progress bar. Ctrl-C stops after a chunk."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

import click
from msgspec import Struct

from protojobs.cli.acting.confirmation import confirm
from protojobs.cli.exits import CommandFailed, Exit
from protojobs.cli.session import Session
from protojobs.cli.showing.text import counted
from protojobs.inspector import Action, Count, Inspector, JobListing, Operation, OperationState, Preview
from protojobs.jobs.fingerprints import last_line

__all__ = ["Bulk"]

LOOK_S = 0.5  # between two looks at an operation


class Bulk(Struct, frozen=True):
    """One action on all that match: what it is called, and what its JSON is called."""

    action: Action
    verb: str  # as a heading: `Run again`
    noun: str
    done: str  # what has become of those that were met: `requeued`
    schema: str

    def run(self, session: Session, inspector: Inspector, query: str, *, is_agreed: bool, is_dry_run: bool) -> int:
        """Returns the exit code. Those that change while it is at work are refused, and left for the next time."""
        preview = inspector.preview(self.action, query)
        if is_dry_run:
            session.out.note(f"{self.verb}: {_number(preview.total, self.noun)}. Nothing was done.")
            _show(session, preview)
            matching = None if _is_unknown(preview.total) else preview.total.number
            item = {"matching": matching, "is_capped": preview.total.is_capped}
            session.out.item(self.schema, item, [("matching", matching)])
            return Exit.OK
        done = refused = 0
        if preview.total.number or _is_unknown(preview.total):
            what = f"{self.verb}: {_number(preview.total, self.noun)}."
            confirm(session.out, what, _examples(preview), is_agreed=is_agreed)
            operation = self._follow(session, inspector, inspector.start(self.action, query, at=preview.at))
            done, refused = operation.done, operation.refused
        item = {self.done: done, "refused": refused}
        session.out.item(self.schema, item, list(item.items()))
        return Exit.PARTLY if refused else Exit.OK

    def _follow(self, session: Session, inspector: Inspector, operation: Operation) -> Operation:
        """Until it has ended. Raises CommandFailed when it did not end well."""
        try:
            with _progress(operation.total) as advance:
                while operation.state is OperationState.RUNNING:
                    before, operation = operation, inspector.wait(operation.id, LOOK_S) or operation
                    advance(operation.done + operation.refused - before.done - before.refused)
        except KeyboardInterrupt:
            inspector.stop_operation(operation.id)
            while operation.state is OperationState.RUNNING:
                operation = inspector.wait(operation.id, LOOK_S) or operation
            session.out.note(f"{operation.done:,} {self.done}; the same command goes on with the rest.")
            raise
        if operation.state is OperationState.FAILED:
            raise CommandFailed(
                Exit.BAD,
                f"It ended early, {operation.done:,} {self.done}: {operation.error}",
                mend="the same command again: it goes on with the rest",
            )
        return operation


@contextmanager
def _progress(total: Count) -> Generator[Callable[[int], None]]:
    """A bar on a terminal. Call what it gives with the number of jobs that were done since the last call."""
    if not sys.stderr.isatty():
        yield lambda _more: None
        return
    with click.progressbar(length=total.number, file=sys.stderr) as bar:
        yield bar.update


def _is_unknown(total: Count) -> bool:
    """No job matched among those that were counted, and there are more."""
    return total.is_capped and not total.number


def _number(total: Count, noun: str) -> str:
    if _is_unknown(total):
        return f"an unknown number of {noun}s, none among the first"
    return counted(total.number, noun) + (" or more" if total.is_capped else "")


def _examples(preview: Preview) -> list[str]:
    lines = [_line_of(preview.sample, index) for index in range(len(preview.sample.jobs))]
    if (more := preview.total.number - len(lines)) > 0:
        lines.append(f"and {more:,} more")
    return lines


def _show(session: Session, preview: Preview) -> None:
    for example in _examples(preview):
        session.out.note(f"  {example}")


def _line_of(listing: JobListing, index: int) -> str:
    job = listing.jobs[index]
    failure = listing.failures.get(job.id)
    outcome = job.status.value if failure is None else last_line(failure.exception)[:80]
    return f"{job.id if failure is None else failure.id}  {job.queue}  {job.job_name}  {outcome}"
