"""`--watch`: show a command's output again and again, until Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Callable

import click

from protojobs.cli.option_types import duration
from protojobs.clock import SYSTEM_CLOCK
from protojobs.errors import StoreUnavailable

__all__ = ["EVERY_MIN_S", "WATCH", "watched"]

EVERY_MIN_S = 0.2  # more often is a load for the store, and nobody reads so fast
_CLEAR = "\x1b[H\x1b[2J\x1b[3J"


def _every(text: str) -> float:
    if (seconds := duration(text)) < EVERY_MIN_S:
        raise click.BadParameter(f"{text!r} is too often. Write at least {EVERY_MIN_S:g}s.")
    return seconds


WATCH = click.option(
    "--watch",
    type=_every,
    is_flag=False,
    flag_value="2s",
    metavar="[TIME]",
    help="Look again every 2s, or TIME, until Ctrl-C.",
)


def watched(show: Callable[[], bool], every_s: float | None) -> None:
    """Call `show` once, or every so many seconds until it returns False or somebody presses Ctrl-C.

    An outage ends a first look, and no later one: whoever watches wants to see the store come back.
    """
    if every_s is None:
        show()
        return
    is_first = True
    try:
        while _look(show, is_first=is_first):
            is_first = False
            SYSTEM_CLOCK.sleep(every_s)
    except KeyboardInterrupt:  # that is how one leaves
        click.echo(err=True)


def _look(show: Callable[[], bool], *, is_first: bool) -> bool:
    if sys.stdout.isatty():
        click.echo(_CLEAR, nl=False)
    elif not is_first:
        click.echo()
    try:
        goes_on = show()
    except StoreUnavailable as error:
        if is_first:
            raise
        click.echo(f"{error.message} Still looking.", err=True)
        goes_on = True
    sys.stdout.flush()
    return goes_on
