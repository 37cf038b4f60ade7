"""`protojobs dashboard`: the dashboard as a server of its own. Off loopback it does not start without an auth."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from contextlib import contextmanager
from socket import AF_INET, AF_INET6, create_server, socket
from typing import Protocol, TypedDict, Unpack, cast, runtime_checkable

import click
import uvicorn

from protojobs import JobQueue
from protojobs.errors import ConfigurationError
from protojobs_dashboard.app import Dashboard
from protojobs_dashboard.auth import Auth, BasicAuth, TokenAuth, is_loopback

__all__ = ["command"]

AUTH_VARIABLE = "PROTOJOBS_DASHBOARD_AUTH"
TOKEN_VARIABLE = "PROTOJOBS_DASHBOARD_TOKEN"
STOP_S = 3  # open streams are cut after so long


@runtime_checkable
class _Session(Protocol):
    """What the command line knows: the options before the command's name, and the store."""

    url: str | None
    apps: list[str]

    def queue(self, *, needs_jobs: bool = False) -> JobQueue:
        """The queue that the options and settings name."""
        ...


class _Options(TypedDict):
    title: str
    read_only: bool
    redact: tuple[str, ...]
    trust_proxy: str | None
    url: str | None
    apps: tuple[str, ...]


@click.command("dashboard", short_help="Serve the dashboard.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option("--port", default=8787, show_default=True, type=click.IntRange(0, 65535), help="0 picks a free one.")
@click.option("--title", default="protojobs", show_default=True, help="What stands at the top of each page.")
@click.option("--read-only", is_flag=True, help="Nobody may change anything.")
@click.option(
    "--redact", multiple=True, metavar="FIELD", help="Hide a field of the jobs' data: password, '*.token'. Repeatable."
)
@click.option(
    "--trust-proxy", metavar="ADDRESSES", help="Take the client's address from X-Forwarded-For of these proxies."
)
@click.option("--url", metavar="URL", help="The store, such as sqlite:///jobs.db.  [env: PROTOJOBS_URL]")
@click.option("--app", "apps", multiple=True, metavar="MODULE", help="Import your jobs: edited data is checked.")
@click.pass_context
def command(ctx: click.Context, host: str, port: int, **look: Unpack[_Options]) -> None:
    """Serve the dashboard until told to stop.

    Without authentication it serves this machine only, and refuses to listen anywhere else. Name the user in the
    environment, where no process list shows it: PROTOJOBS_DASHBOARD_AUTH=user:password, or for programs and browsers
    (as the password, with any user) PROTOJOBS_DASHBOARD_TOKEN=...
    """
    auth = auth_of(os.environ.get(AUTH_VARIABLE, ""), os.environ.get(TOKEN_VARIABLE, ""))
    if auth is None and not is_loopback(host):
        raise ConfigurationError(
            f"The dashboard would be open to whoever reaches {host}.",
            mend=(
                f"Set {AUTH_VARIABLE}=user:password or {TOKEN_VARIABLE}=..., or listen at 127.0.0.1 and come by an SSH"
                " tunnel, or mount it in your own site with its login: docs/how-to/dashboard.md."
            ),
        )
    queue = _queue(ctx, look["url"], look["apps"])
    queue.driver.stats(counted_max=1)  # a store that cannot be reached, or has no tables, is told now
    dashboard = Dashboard(queue, auth=auth, title=look["title"], redact=look["redact"], is_read_only=look["read_only"])
    _serve(dashboard, host, port, look["trust_proxy"])


def auth_of(user: str, token: str) -> Auth | None:
    """The authentication that the environment names; None where it names none."""
    if user and token:
        raise ConfigurationError(f"{AUTH_VARIABLE} and {TOKEN_VARIABLE} are both set.", mend="Unset one of them.")
    if token:
        return TokenAuth({"token": token})
    if not user:
        return None
    name, colon, password = user.partition(":")
    if not colon:
        raise ConfigurationError(f"{AUTH_VARIABLE} has no colon.", mend="Write it as user:password.")
    return BasicAuth({name: password})


def _queue(ctx: click.Context, url: str | None, apps: tuple[str, ...]) -> JobQueue:
    session = cast("object", ctx.find_root().obj)
    if not isinstance(session, _Session):
        raise ConfigurationError("The dashboard is a command of protojobs.", mend="Call it as protojobs dashboard.")
    session.url = url or session.url
    session.apps += apps
    return session.queue(needs_jobs=bool(session.apps))  # named here; those of the settings are not needed to look


def _serve(dashboard: Dashboard, host: str, port: int, trust_proxy: str | None) -> None:
    config = uvicorn.Config(
        dashboard,
        host=host,
        port=port,
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        # A proxy's word on who is asking counts only where it was told to.
        proxy_headers=trust_proxy is not None,
        forwarded_allow_ips=trust_proxy or "",
        timeout_graceful_shutdown=STOP_S,
        limit_concurrency=500,
        h11_max_incomplete_event_size=64 * 1024,
    )
    with _listening(host, port) as listening:
        _Server(config).run(sockets=[listening])


def _listening(host: str, port: int) -> socket:
    try:
        return create_server((host, port), family=AF_INET6 if ":" in host else AF_INET)
    except OSError as error:
        why = str(error.strerror).partition(" (")[0]  # behind it, create_server tells the address again
        raise ConfigurationError(
            f"Nothing can listen at {host}, port {port}: {why}.",
            mend="Name another --port (0 picks a free one), or a --host of this machine.",
        ) from error


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Ctrl-C and SIGTERM end it with exit code 0; uvicorn's own would raise them again afterwards."""
        before = {one: signal.signal(one, self.handle_exit) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        for server in self.servers if self.started else []:
            for listening in server.sockets:
                host, port = listening.getsockname()[:2]
                shown = f"[{host}]" if ":" in host else host
                click.echo(f"The dashboard is at http://{shown}:{port}/ (Ctrl-C stops it)", err=True)
