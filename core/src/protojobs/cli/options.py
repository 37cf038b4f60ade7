"""The options that every command takes, before or after its name; and commands that know them and suggest names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

import click

from protojobs.cli.session import Session
from protojobs.errors import did_you_mean

__all__ = ["COMMON", "NAMES", "StoreCommand", "StoreGroup", "unknown_command"]

NAMES = {"help_option_names": ["-h", "--help"]}


def _keep(name: str) -> Callable[[click.Context, click.Parameter, object], object]:
    def keep(ctx: click.Context, param: click.Parameter, value: object) -> object:
        session = ctx.find_object(Session)
        if session is not None and name == "apps":
            session.apps += cast("tuple[str, ...]", value)
        elif session is not None and value:  # given before or after the command's name, it stays
            setattr(session, name, value)
        return value

    return keep


def _common(flag: str, name: str, words: str, *, metavar: str | None = None, multiple: bool = False) -> click.Option:
    return click.Option(
        [flag],
        is_flag=True if metavar is None else None,
        metavar=metavar,
        multiple=multiple,
        expose_value=False,
        callback=_keep(name),
        help=words,
    )


COMMON: list[click.Parameter] = [
    _common("--url", "url", "The store, such as sqlite:///jobs.db.  [env: PROTOJOBS_URL]", metavar="URL"),
    _common(
        "--app",
        "apps",
        "Import your jobs: module, or module:object for a JobQueue. Repeatable.  [env: PROTOJOBS_APP]",
        metavar="MODULE[:OBJECT]",
        multiple=True,
    ),
    _common("--json", "is_json", "One JSON document on stdout."),
    _common("--debug", "is_debug", "Show the traceback of an error."),
]


class _Common(click.Command):
    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        own = super().get_params(ctx)
        return [*own[:-1], *COMMON, own[-1]] if own and "--help" in own[-1].opts else [*own, *COMMON]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        shared = {id(param) for param in COMMON}
        mine: list[tuple[str, str]] = []
        common: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)) is not None:
                is_common = id(param) in shared or "--help" in param.opts
                (common if is_common else mine).append(record)
        for title, records in (("Options", mine), ("Common options", common)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)


class StoreCommand(_Common):
    """A command that takes the common options too."""


class StoreGroup(_Common, click.Group):
    """A group of such commands."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Alone it prints its help: asking what there is is no error."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is meant. Raises a UsageError with the closest name."""
        if not ctx.resilient_parsing and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise unknown_command(args[0], self.list_commands(ctx), ctx)
        return super().resolve_command(ctx, args)


def unknown_command(name: str, known: Iterable[str], ctx: click.Context) -> click.UsageError:
    """The error for a command that does not exist."""
    return click.UsageError(f'There is no command "{name}". {did_you_mean(name, known)}'.rstrip(), ctx)
