"""Which jobs a command is about: `--where`, ids and pages of them, by the Inspector of the person who types."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterable, Iterator, Sequence

import click

from protojobs.cli.session import Session
from protojobs.inspector import Inspector, JobListing, Viewer
from protojobs.names import check_name
from protojobs.querying.query import quoted

__all__ = ["DRY_RUN", "IDS_AT_ONCE", "WHERE", "check_where", "ids_of", "inspector_of", "listings", "query_of"]

IDS_AT_ONCE = 1_000  # in one call, and one line of the audit log
_PAGE = 500

WHERE = click.option(
    "--where",
    "-w",
    default="",
    metavar="QUERY",
    help="Only those that match, such as 'queue:emails job:Send* took:>30s error:\"timed out\" created:>-2h'.",
)
DRY_RUN = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")


def inspector_of(session: Session) -> Inspector:
    """The store of this command line, seen by the person who types."""
    return Inspector(session.queue(), Viewer(name=f"cli:{_user()}"))


def query_of(where: str, *, states: Sequence[str] = (), queue: str | None = None, name: str | None = None) -> str:
    """The query that these options and `--where` add up to. A queue is that of this very name, whatever the name holds;
    in the name of a job `*` stands for any characters.
    """
    words = [f"state:{','.join(states)}"] if states else []
    words += [f"queue:{quoted(check_name('--queue', queue))}"] if queue is not None else []
    words += [f"job:{quoted(name, with_stars=True)}"] if name is not None else []
    return " ".join([*words, where]).strip()


def check_where(where: str) -> str:
    """`--where` of a command that acts: blank, as of a variable that is not set, it would mean every job."""
    if where and not where.strip():
        raise click.UsageError("--where is blank, and would mean every job.", click.get_current_context())
    return where


def listings(
    inspector: Inspector, query: str, *, limit: int, cursor: str | None, is_whole: bool
) -> Iterator[JobListing]:
    """Pages of what matches, up to `limit` jobs, however long the search takes. `is_whole`: with all of their data."""
    left = limit
    while left > 0:
        cut = {"chars_max": None} if is_whole else {}
        page = inspector.jobs(query, limit=min(left, _PAGE), cursor=cursor, **cut)
        yield page
        left, cursor = left - len(page.jobs), page.cursor
        if cursor is None:
            return


def ids_of(ids: Iterable[str]) -> list[str]:
    """The ids in the arguments, each once; `-` stands for those on stdin, one a line (its first word)."""
    all_ids: list[str] = []
    for argument in ids:
        all_ids += [line.split()[0] for line in sys.stdin if line.strip()] if argument == "-" else [argument]
    return list(dict.fromkeys(all_ids))


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        return "unnamed"
