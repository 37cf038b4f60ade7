"""`protojobs alerts`: watch the store, and send alerts. Needs the URL only, and no application."""

from __future__ import annotations

import logging
import signal
from types import FrameType

import click

from protojobs import JobQueue
from protojobs.config import plugin_settings
from protojobs.errors import ConfigurationError
from protojobs.stopping import Wakeup
from protojobs_alerts.findings import Finding
from protojobs_alerts.messages import Notice
from protojobs_alerts.sending import Channel, SendFailed
from protojobs_alerts.settings import AlertSettings
from protojobs_alerts.watching import Watcher, channels_of

__all__ = ["command"]

_TEST = Finding(kind="more", text="This is a test of protojobs alerts. Nothing is wrong.")


@click.command("alerts", short_help="Tell of failed jobs and backed-up queues.")
@click.option("--url", help="The store.  [env: PROTOJOBS_URL]", metavar="URL")
@click.option("--once", is_flag=True, help="Print what is wrong now, and send nothing; exit code 1 if something is.")
@click.option("--test", is_flag=True, help="Send a test message by each way, and say what became of it.")
@click.pass_context
def command(ctx: click.Context, url: str | None, once: bool, test: bool) -> None:
    """Watch the store, and send a message when jobs fail for good, queues fall behind, or no worker is alive.

    Run one of it for the whole fleet: two would tell everything twice. Where messages go, and what is an alert, is in
    the environment, PROTOJOBS_ALERTS_*: see docs/how-to/alerts.md.

    \b
    protojobs alerts --once
    PROTOJOBS_ALERTS_WEBHOOK=https://chat.example.com/hooks/jobs protojobs alerts --test
    PROTOJOBS_ALERTS_WEBHOOK=https://chat.example.com/hooks/jobs protojobs alerts
    """
    if once and test:
        raise click.UsageError("Give --once or --test, not both.", ctx)
    settings = plugin_settings("alerts", AlertSettings) or AlertSettings()
    # Given before the command's name it belongs to the root, whose object keeps it.
    store_url = url or getattr(ctx.find_root().obj, "url", None)
    with JobQueue.from_config(url=store_url) as queue:
        watcher = Watcher(queue, settings)
        if once:
            _once(ctx, watcher)
        elif test:
            _test(ctx, watcher, _channels(settings))
        else:
            queue.driver.workers()  # a store that is not there, or not migrated, is an error at once
            _watch(watcher, settings, _channels(settings))


def _channels(settings: AlertSettings) -> list[Channel]:
    if channels := channels_of(settings):
        return channels
    raise ConfigurationError(
        "There is no way by which to tell anybody.",
        mend="Set PROTOJOBS_ALERTS_WEBHOOK, or PROTOJOBS_ALERTS_MAIL_SERVER with _MAIL_FROM and _MAIL_TO.",
    )


def _once(ctx: click.Context, watcher: Watcher) -> None:
    findings = watcher.look()
    for finding in findings:
        click.echo(finding.text)
    if not findings:
        click.echo("Nothing is wrong.", err=True)
    ctx.exit(1 if findings else 0)


def _test(ctx: click.Context, watcher: Watcher, channels: list[Channel]) -> None:
    (message,) = watcher.messages([Notice(status="firing", finding=_TEST)])
    has_failed = False
    for channel in channels:
        try:
            channel.send(message)
        except SendFailed as failure:
            has_failed = True
            click.echo(f"{channel.name}: {failure}", err=True)
        else:
            click.echo(f"{channel.name}: taken", err=True)
    ctx.exit(1 if has_failed else 0)


def _watch(watcher: Watcher, settings: AlertSettings, channels: list[Channel]) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stop = Wakeup()

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    ways = ", ".join(channel.name for channel in channels)
    click.echo(f"watching every {settings.look:g} s, telling by {ways}; Ctrl-C to stop", err=True)
    watcher.run(stop, channels)
