"""`protojobs demo`: a little shop's background jobs, live, on a database that is kept for you to look into."""

from __future__ import annotations

import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import click

from protojobs import JobQueue, Settings, StopToken, WorkReport, create_driver
from protojobs_examples._demo_screen import Screen
from protojobs_examples._demo_shop import BUSY, MISSING_CUSTOMER, QUEUES, Promise, Shop
from protojobs_examples._demo_tally import Tally

__all__ = ["command"]

APP = "protojobs_examples.demo_jobs"
RUN_MAX_S = 25.0
STOP_MAX_S = 10.0


@click.command("demo", short_help="A live demonstration in this terminal.")
@click.option("--url", help="An empty store to use instead of a new SQLite file.", metavar="URL")
@click.pass_context
def command(ctx: click.Context, url: str | None) -> None:
    """Run a little shop's background jobs, and watch them: mails, images, a clean-up, one retry and one failure.

    Takes a few seconds. Mails go to a catcher on this machine. Exit code 0 when all went as promised, 1 when not.
    """
    folder = Path(tempfile.mkdtemp(prefix="protojobs-demo-"))
    ctx.exit(0 if run(folder, url, Screen()) else 1)


def run(folder: Path, url: str | None, screen: Screen) -> bool:
    """The whole story. True when every promise was kept."""
    store = url or f"sqlite:///{folder / 'jobs.db'}"
    driver = create_driver(store)
    # Settings given whole: the configuration of the project that the demo is started in is none of its business.
    queue = JobQueue(driver, Settings(retry_delay=1.0, concurrency=4))
    try:
        driver.setup()
        if queue.stats().total:
            raise click.ClickException("This store is not empty, and the demo would run its jobs. Give it a new one.")
        shop = Shop(folder)
        with shop.open():
            return tell(shop, queue, store, screen)
    finally:
        driver.close()


def tell(shop: Shop, queue: JobQueue, url: str, screen: Screen) -> bool:
    """Push, work, and show what came of it."""
    screen.heading("1. The shop pushes its work")
    started = time.monotonic()
    pushed = shop.push_all(queue)
    took = time.monotonic() - started
    total = sum(pushed.values())
    screen.say(f"{total} jobs are stored, in {took:.2f} s. None has run yet: the shop need not wait.")
    screen.say("What push has stored is not lost any more, whichever process dies.")

    screen.heading("2. A worker runs them")
    screen.say(f"The mail server is busy twice for {BUSY}: to be tried again.")
    screen.say(f"Customer {MISSING_CUSTOMER} has no address: that job fails for good, and is kept.")
    tally = Tally(pushed, lambda text: screen.say(text, "yellow"))
    with tally.listening(), working(queue) as worker:
        screen.watch(tally, RUN_MAX_S, worker.is_alive)

    screen.heading("3. What came of it")
    stats = queue.stats()
    promises: list[Promise] = [
        (
            f"of {total} jobs {stats.completed} completed and {stats.failed} failed; none was lost",
            (stats.completed, stats.failed, stats.total) == (total - 1, 1, total),
        ),
        *shop.promises(),
        ("the busy mail server was asked three times", tally.counts["emails"].retried == 2),
    ]
    screen.table(tally)
    screen.promises(promises)
    failed = next(iter(queue.failed_jobs()), None)
    if failed is not None:
        screen.failed_job(failed)
    if failed is not None and queue.driver.capabilities.cross_process:
        screen.commands("Look into it", [*_exports(url, shop.folder), *_looking()])
        screen.commands("Mend the cause, and run the failed job again", _mending(failed.id))
    screen.kept(shop.folder)
    return all(is_kept for _, is_kept in promises)


@contextmanager
def working(queue: JobQueue) -> Generator[threading.Thread]:
    """A worker on a thread, as `protojobs worker` is one in a process; stopped at the end of the block."""
    stop = StopToken()
    reports: list[WorkReport] = []
    worker = threading.Thread(
        target=lambda: reports.append(queue.work(list(QUEUES), stop=stop)), name="demo-worker", daemon=True
    )
    worker.start()
    try:
        yield worker
    finally:
        stop.stop()  # let running jobs finish, take no new ones
        worker.join(STOP_MAX_S)


def _exports(url: str, folder: Path) -> list[str]:
    shown = (
        url if "@" not in url else "...the URL that you gave..."
    )  # it may hold a password, which belongs on no screen
    return [f"export PROTOJOBS_URL={shown}", f"export PROTOJOBS_APP={APP} SHOP_FOLDER={folder}"]


def _looking() -> list[str]:
    return [f"{_program()} {rest}" for rest in ("stats", "jobs list", "failed list")]


def _mending(failed_id: str) -> list[str]:
    return [
        f"""echo '{{"name": "Jo"}}' > "$SHOP_FOLDER/customers/{MISSING_CUSTOMER}.json" """.rstrip(),
        f"{_program()} failed retry {failed_id}",
        f"{_program()} worker invoices --max-jobs 1",
    ]


def _program() -> str:
    """How the command line was called, so that what is printed can be copied."""
    called = Path(sys.argv[0])
    if called.stem != "protojobs" or shutil.which("protojobs") == str(called):
        return "protojobs"
    return str(called.relative_to(Path.cwd())) if called.is_relative_to(Path.cwd()) else str(called)
