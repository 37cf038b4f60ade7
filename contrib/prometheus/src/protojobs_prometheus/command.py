"""`protojobs metrics`: print the store's metrics once, or serve them. Needs the URL only, and no application."""

from __future__ import annotations

import signal
import socket
from types import FrameType

import click

from protojobs import JobQueue
from protojobs.errors import ConfigurationError, OptionInvalid
from protojobs.stopping import Wakeup
from protojobs_prometheus.server import MetricsServer
from protojobs_prometheus.settings import parse_ports
from protojobs_prometheus.text import exposition

__all__ = ["command"]

LOOK_S = 0.5


@click.command("metrics", short_help="The store's metrics for Prometheus.")
@click.option("--url", help="The store.  [env: PROTOJOBS_URL]", metavar="URL")
@click.option("--serve", help="Serve them on [HOST:]PORT until told to stop.", metavar="ADDRESS")
@click.pass_context
def command(ctx: click.Context, url: str | None, serve: str | None) -> None:
    """Print the numbers of the store in the text format of Prometheus: jobs by queue, oldest due job, workers.

    They are those of the whole fleet, so let one process serve them; it sits out a store that goes away. Workers serve
    their own numbers where PROTOJOBS_PROMETHEUS_PORT is set.

    \b
    protojobs metrics --url sqlite:///jobs.db
    protojobs metrics --serve 9480
    protojobs metrics --serve 0.0.0.0:9480
    """
    # Given before the command's name it belongs to the root, whose object keeps it.
    store_url = url or getattr(ctx.find_root().obj, "url", None)
    with JobQueue.from_config(url=store_url) as queue:
        queue.driver.workers()  # a store that is not there, or not migrated, is an error at once
        if serve is None:
            click.echo(exposition(queue), nl=False)
        else:
            _serve(queue, *_address(serve))


def _serve(queue: JobQueue, host: str, ports: range) -> None:
    try:  # a worker waits for its port, whose holder may be about to end; a person wants to know
        socket.create_server((host, ports[0]), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        raise ConfigurationError(
            f"Nothing can listen at {host}, port {ports[0]}: {error.strerror or error}.", mend="Choose another port."
        ) from None
    server = MetricsServer(lambda: exposition(queue).encode(), host, ports)
    stop = Wakeup()

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    server.start()
    while not (stop.is_set() or server.listening.wait(LOOK_S)):
        pass
    if not stop.is_set():
        click.echo(f"metrics on http://{host}:{server.port}/metrics; Ctrl-C to stop", err=True)
    while not stop.wait(LOOK_S):  # not for ever: on Windows a wait without a limit hears no Ctrl-C
        pass
    server.close()


def _address(text: str) -> tuple[str, range]:
    host, _, port = text.rpartition(":")
    ports = parse_ports(port)
    if len(ports) > 1:
        raise OptionInvalid("--serve takes one port.", mend="Write it like 9480 or 0.0.0.0:9480.")
    return host.strip("[]") or "127.0.0.1", ports
