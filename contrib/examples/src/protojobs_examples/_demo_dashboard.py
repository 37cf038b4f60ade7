"""`protojobs demo --dashboard`: shows the store of the demo in a browser, while the shop goes on pushing jobs."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
import webbrowser
from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from types import FrameType

import click

from protojobs import JobQueue
from protojobs.stopping import Wakeup
from protojobs_examples.demo_jobs import SendEmailJob, WriteInvoiceJob, add_up_order

__all__ = ["check_installed", "dashboard", "opened", "trade"]

HOST = "127.0.0.1"
BEGIN_MAX_S = 20.0  # a Python that starts takes half a second; a busy machine may take its time
END_MAX_S = 3.0
LOOK_S = 0.1
EVERY_S = 1.0  # between two rounds of trade
ORDERS_MAX = 6
INVOICE_SHARE = 0.1  # of the rounds: a customer without an address, so that there are errors to look at


def check_installed() -> None:
    """Raise ClickException where the dashboard is not there."""
    if not any(entry.name == "dashboard" for entry in entry_points(group="protojobs.commands")):
        raise click.ClickException('The dashboard is not installed. Try: pip install "protojobs[dashboard]"')


@contextmanager
def dashboard(url: str, port: int, folder: Path) -> Generator[str]:
    """Serve the store in a process of its own for the time of the block; its address. `port` 0 picks a free one."""
    port = port or _free_port()
    if _answers(port):
        raise click.ClickException(f"Something answers on port {port} already. Give another --port.")
    others = {name: value for name, value in os.environ.items() if not name.startswith("PROTOJOBS_")}
    log_file = folder / "dashboard.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "protojobs.cli", "dashboard", "--host", HOST, "--port", str(port)],
            env={**others, "PROTOJOBS_URL": url},  # it may hold a password: not an argument, which everyone could read
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C means the demo, which ends it
        )
        try:
            deadline = time.monotonic() + BEGIN_MAX_S
            while not _answers(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise click.ClickException(f"The dashboard did not start; {log_file} says why.")
                time.sleep(LOOK_S)
            yield f"http://{HOST}:{port}/"
        finally:
            process.terminate()
            try:
                process.wait(END_MAX_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(END_MAX_S)


def opened(address: str) -> bool:
    """Show it in the person's browser, where there is a screen for one. Whether there is."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    return webbrowser.open(address)


def trade(queue: JobQueue, duration_s: float | None) -> None:
    """Push orders, mails and now and then an invoice that fails, until Ctrl-C, SIGTERM or the end of the time."""
    ends_at = None if duration_s is None else time.monotonic() + duration_s
    number = 1_000
    with _stop_signals() as stopped:
        while ends_at is None or time.monotonic() < ends_at:
            for _ in range(random.randint(1, ORDERS_MAX)):
                number += 1
                queue.push(add_up_order.bind(number, [round(random.uniform(1, 90), 2) for _ in range(3)]))
            queue.push(
                SendEmailJob,
                {"to": f"customer{number}@example.com", "subject": f"Your order {number}", "body": "Thank you.\n"},
            )
            if random.random() < INVOICE_SHARE:
                queue.push(WriteInvoiceJob, {"customer": number, "total": 12.5})
            left_s = EVERY_S if ends_at is None else min(EVERY_S, max(ends_at - time.monotonic(), 0.0))
            if stopped.wait(left_s):
                return


@contextmanager
def _stop_signals() -> Generator[Wakeup]:
    """Ctrl-C and SIGTERM set the event, and do nothing else."""
    stopped = Wakeup()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), LOOK_S * 5).close()
    except OSError:
        return False
    return True
