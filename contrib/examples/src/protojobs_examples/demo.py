"""`protojobs demo`: a little shop's background jobs, live, on a database that is kept for you to look into."""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import click

from protojobs import JobQueue, Scheduler, Settings, StopToken, WorkReport, create_driver
from protojobs_examples._demo_dashboard import check_installed, opened, trade
from protojobs_examples._demo_dashboard import dashboard as served
from protojobs_examples._demo_killed import CAN_KILL, kill_a_worker
from protojobs_examples._demo_screen import Screen
from protojobs_examples._demo_shop import BUSY, MISSING_CUSTOMER, QUEUES, TIMES, Promise, Shop
from protojobs_examples._demo_tally import Tally

__all__ = ["command"]

APP = "protojobs_examples.demo_jobs"
LEASE_S = 2.0  # of each worker; 60 s unless told otherwise, which is long for a demo
RUN_MAX_S = 20.0
STOP_MAX_S = 10.0
TICKERS = 2


@click.command("demo", short_help="A live demonstration in this terminal.")
@click.option("--url", help="An empty store to use instead of a new SQLite file.", metavar="URL")
@click.option("--dashboard", is_flag=True, help="Show it in the browser too, and go on until Ctrl-C.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=0, metavar="PORT", help="Of the dashboard.  [default: a free one]"
)
@click.option("--no-browser", is_flag=True, help="Only print its address.")
@click.option(
    "--duration",
    type=click.FloatRange(0, 86_400),
    metavar="SECONDS",
    help="Go on for so long.  [default: until Ctrl-C]",
)
@click.pass_context
def command(
    ctx: click.Context, url: str | None, dashboard: bool, port: int, no_browser: bool, duration: float | None
) -> None:
    """Run a little shop's background jobs, and watch them: retries, a failure, and a worker that is killed.

    Takes a few seconds. Mails go to a catcher on this machine. Exit code 0 when all went as promised, 1 when not.
    With --dashboard the shop goes on trading afterwards, for you to look at and to play with.
    """
    if dashboard:
        check_installed()
    elif port or no_browser or duration is not None:
        raise click.UsageError("--port, --no-browser and --duration go with --dashboard.", ctx)
    look = Look(port, is_opened=not no_browser, duration_s=duration) if dashboard else None
    folder = Path(tempfile.mkdtemp(prefix="protojobs-demo-"))
    # Given before the command's name it belongs to the root, whose object keeps it.
    store_url = url or getattr(ctx.find_root().obj, "url", None)
    # A worker that takes back jobs logs a warning, and here the screen says so already.
    logging.getLogger("protojobs").addHandler(logging.NullHandler())
    try:
        is_kept = run(folder, store_url, Screen(), look)
    except BaseException:
        with suppress(OSError):
            folder.rmdir()  # it goes if nothing was put there yet
        raise
    ctx.exit(0 if is_kept else 1)


class Look(NamedTuple):
    """How the dashboard is to be shown."""

    port: int
    is_opened: bool
    duration_s: float | None


def run(folder: Path, url: str | None, screen: Screen, look: Look | None = None) -> bool:
    """The whole story. True when every promise was kept."""
    store = url or f"sqlite:///{folder / 'jobs.db'}"
    driver = create_driver(store)
    # Settings given whole: the configuration of the project that the demo is started in is none of its business.
    queue = JobQueue(driver, Settings(retry_delay=1.0, concurrency=4, lease=LEASE_S))
    try:
        driver.setup()
        if queue.stats().total or Scheduler(queue).schedules():
            raise click.ClickException("This store is not empty, and the demo would run its jobs. Give it a new one.")
        shop = Shop(folder)
        with shop.open(), ticking(queue):
            return tell(shop, queue, store, screen) if look is None else show(shop, queue, store, screen, look)
    finally:
        driver.close()


def show(shop: Shop, queue: JobQueue, url: str, screen: Screen, look: Look) -> bool:
    """Tell the story behind the dashboard, and go on trading."""
    with served(url, look.port, shop.folder) as address:
        screen.heading(f"The dashboard: {address}")
        if look.is_opened and not opened(address):
            screen.say("There is no screen here to open a browser on: type the address into one.")
        is_kept = tell(shop, queue, url, screen)
        screen.heading(f"5. The shop goes on trading: {address}")
        screen.say("Ctrl-C ends it." if look.duration_s is None else f"For {look.duration_s:g} s, or until Ctrl-C.")
        with working(queue):
            trade(queue, look.duration_s)
        return is_kept


def tell(shop: Shop, queue: JobQueue, url: str, screen: Screen) -> bool:
    """Push, work, and show what came of it."""
    screen.heading("A little shop and its background jobs. No mail leaves this machine.")
    screen.heading("1. The shop pushes its work")
    started = time.monotonic()
    pushed = shop.push_all(queue)
    took = time.monotonic() - started
    screen.say(f"{sum(pushed.values())} jobs are stored, in {took:.2f} s. None has run yet: the shop need not wait.")
    screen.say("What push has stored is not lost any more, whichever process dies.")
    pushed = {**pushed, **shop.schedule(queue)}
    total = sum(pushed.values())
    screen.say(f"A schedule makes {TIMES} more, one each second. {TICKERS} tickers compete for it.")

    can_kill = CAN_KILL and queue.driver.capabilities.cross_process
    if can_kill:
        screen.heading("2. A worker is killed in the middle of a job")
        killed = kill_a_worker(url, shop.folder, APP, lease_s=LEASE_S)
        screen.say(
            f"kill -9 {killed}: it was delivering a parcel, and can tell nobody." if killed else "It did not start."
        )
        screen.say(f"When nobody has heard of it for {LEASE_S:g} s, another worker may take the job back.")

    screen.heading("3. Another worker runs them all")
    screen.say(f"The mail server is busy twice for {BUSY}: to be tried again.")
    screen.say(f"Customer {MISSING_CUSTOMER} has no address: that job fails for good, and is kept.")
    tally = Tally(pushed, lambda text: screen.say(text, "yellow"))
    with tally.listening(), working(queue) as worker:
        screen.watch(tally, RUN_MAX_S, worker.is_alive)

    screen.heading("4. What came of it")
    stats = queue.stats()
    promises: list[Promise] = [
        (
            f"of {total} jobs {stats.completed} completed and {stats.failed} failed; none was lost",
            (stats.completed, stats.failed, stats.total) == (total - 1, 1, total),
        ),
        *shop.promises(),
        ("the busy mail server was asked three times", tally.counts["emails"].retried == 2),
        *(
            [("the job of the killed worker was run again", tally.counts["deliveries"].retried == 1)]
            if can_kill
            else []
        ),
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
def ticking(queue: JobQueue) -> Generator[None]:
    """Tickers on threads, each of which would do; in real life every `protojobs worker` is one."""
    stop = StopToken()
    tickers = [
        threading.Thread(target=Scheduler(queue).run, args=(stop,), name=f"demo-ticker-{number}", daemon=True)
        for number in range(TICKERS)
    ]
    for ticker in tickers:
        ticker.start()
    try:
        yield
    finally:
        stop.stop()
        for ticker in tickers:
            ticker.join(STOP_MAX_S)


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
    return [f"export PROTOJOBS_URL={shown}", f"export PROTOJOBS_APP={APP}", f"export SHOP_FOLDER={folder}"]


def _looking() -> list[str]:
    return [f"{_program()} {rest}" for rest in ("stats", "jobs list --queue emails", "failed list")]


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
