"""`protojobs health`: ask the probe of a worker, or the store, and tell its health by the exit code."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from contextlib import suppress

import click
import msgspec

from protojobs.cli.exits import CommandFailed, Exit
from protojobs.cli.health_probe.health import Health
from protojobs.cli.option_types import duration
from protojobs.cli.options import StoreCommand
from protojobs.cli.session import NO_STORE_MEND, Session, queue_of
from protojobs.cli.showing.tables import Cell
from protojobs.clock import SYSTEM_CLOCK, within
from protojobs.entropy import fresh_id
from protojobs.errors import ConfigurationError, DriverError, StoreUnavailable
from protojobs.port.driver import Store
from protojobs.port.installed_drivers import create_driver
from protojobs.port.urls import masked

__all__ = ["command"]

RESPONSE_BYTES_MAX = 1024 * 1024  # a thousand workers under one supervisor fit
MARGIN_S = 1.0  # beyond the time limit, for a driver that keeps it


@click.command("health", cls=StoreCommand, short_help="Ask a worker, or the store, how it is.")
@click.option("--live", is_flag=True, help="Do the worker's threads turn? Never depends on the store.")
@click.option("--ready", is_flag=True, help="Does the worker take jobs? Without --port: does the store answer?")
@click.option(
    "--port", type=click.IntRange(1, 65_535), metavar="PORT", help="Of the worker's probe: what it has as --probe-port."
)
@click.option("--host", metavar="HOST", default="127.0.0.1", help="Where that is.  [default: 127.0.0.1]")
@click.option("--timeout", type=duration, metavar="TIME", default="5s", help="For the answer.  [default: 5s]")
@click.pass_obj
def command(session: Session, live: bool, ready: bool, port: int | None, host: str, timeout: float) -> int:
    """Ask a worker's probe, or else the store, how it is; --ready unless you say --live.

    Exit code 0: well. 1: the worker says that it is not. 5: nobody answers. A probe is asked without loading your code
    or a driver, and answers without asking the store.

    \b
    protojobs health --live --port 7001
    protojobs health --ready --port 7001
    protojobs health --url postgresql://db/shop
    """
    if live and ready:
        raise click.UsageError("Ask --live or --ready, not both.", click.get_current_context())
    if port is not None:
        return _show(session, *_health_of(host, port, "livez" if live else "readyz", timeout))
    if live:
        raise click.UsageError(
            "Only a worker's probe can say whether the worker is live. Name its port: --port 7001, where the worker has"
            " --probe-port 7001",
            click.get_current_context(),
        )
    _ask_store(session, timeout)
    return Exit.OK


def _show(session: Session, is_well: bool, health: Health) -> int:
    more = {"is_well": is_well}
    fields: list[tuple[str, Cell]] = [
        ("state", health.state),
        ("live", _yes(health.is_live)),
        ("ready", _yes(health.is_ready)),
        ("workers", len(health.workers)),
        ("running", sum(worker.running for worker in health.workers)),
        ("slots", sum(worker.slots for worker in health.workers)),
    ]
    session.out.item("health@1", health, fields, more=more)
    for reason in health.reasons:
        session.out.note(f"{reason}.")
    return Exit.OK if is_well else Exit.BAD


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"


def _health_of(host: str, port: int, page: str, timeout: float) -> tuple[bool, Health]:
    """Whether the probe's response was 200, and its body.

    By hand, since a probe runs every few seconds: importing http.client takes 40 ms, as long as all the rest.
    """
    try:
        response = _response_of(host, port, f"GET /{page} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode(), timeout)
    except OSError as error:
        raise CommandFailed(
            Exit.UNREACHABLE,
            f"Nobody answers on {host}, port {port}. {error.strerror or error}.",
            mend="Start the worker with --probe-port, and give its number as --port.",
        ) from error
    head, _, body = response.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    try:
        if len(words) < 2 or words[1] not in (b"200", b"503"):
            raise ValueError
        return words[1] == b"200", msgspec.json.decode(body, type=Health)
    except (ValueError, msgspec.DecodeError):
        raise CommandFailed(
            Exit.BAD,
            f"What answers on {host}, port {port} is no probe of a protojobs worker.",
            mend="Give the number that the worker has as --probe-port.",
        ) from None


def _response_of(host: str, port: int, request: bytes, timeout: float) -> bytes:
    ends_at = SYSTEM_CLOCK.monotonic() + timeout
    response = b""
    with socket.create_connection((host, port), max(timeout, 0.001)) as connection:
        connection.sendall(request)
        while len(response) < RESPONSE_BYTES_MAX:
            if (left_s := ends_at - SYSTEM_CLOCK.monotonic()) <= 0:
                raise TimeoutError("timed out")
            connection.settimeout(left_s)
            if not (piece := connection.recv(65_536)):
                break
            response += piece
    return response


def _ask_store(session: Session, timeout: float) -> None:
    """One small read. Raises what the store says: that it is away, or not migrated."""
    settings = session.settings()
    # As for every other command: a JobQueue that your code makes is the store, whatever url is configured beside it.
    own = [] if session.url is not None else [name for name in settings.app if ":" in name]
    if settings.url is None and not own:
        raise ConfigurationError("No store is configured.", mend=NO_STORE_MEND)
    began = SYSTEM_CLOCK.monotonic()
    store_name = _in_time(session, settings.url or "", own, timeout)
    took_s = SYSTEM_CLOCK.monotonic() - began
    item: dict[str, Cell] = {"store": store_name, "is_well": True, "took_s": took_s}
    session.out.item("health.store@1", item, [("store", store_name), ("ready", "yes"), ("took", f"{took_s:.3f} s")])


def _in_time(session: Session, url: str, own: Sequence[str], timeout: float) -> str:
    """Read in a thread of its own, which is left behind when it has not ended in time: a probe must not hang. Returns
    the name of the store.
    """
    store_name = ", ".join(own) or masked(url)
    raised: list[Exception] = []
    ended = threading.Event()

    def read() -> None:
        nonlocal store_name
        driver: Store | None = None
        try:
            queue = queue_of(own, session.app_source if own else None)
            if queue is not None:
                store_name = session.store_name(queue)
            with within(timeout):
                driver = create_driver(url) if queue is None else queue.driver
                driver.get([fresh_id()])  # one look into the index of jobs: it needs the tables, and little else
        except Exception as error:  # noqa: BLE001  (it is raised in the thread that waits)
            raised.append(error)
        finally:
            ended.set()
        if driver is not None:
            with suppress(DriverError):  # there is nobody left to tell
                driver.close()

    threading.Thread(target=read, name="protojobs-health", daemon=True).start()
    if not ended.wait(timeout + MARGIN_S):
        raise StoreUnavailable(f"The store {store_name} has not answered for {timeout:g} s.")
    if raised:
        raise raised[0]
    return store_name
