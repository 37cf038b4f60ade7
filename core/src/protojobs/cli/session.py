"""One run of the command line: its options, and the settings, the store and the output that follow from them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from msgspec.structs import replace

from protojobs.cli.app import load_app, look_here
from protojobs.cli.exits import CommandFailed, Exit
from protojobs.cli.showing.output import Output
from protojobs.config import Settings, load_settings, source_of
from protojobs.errors import ConfigurationError, DriverError
from protojobs.port.driver import Store
from protojobs.port.installed_drivers import create_driver
from protojobs.port.urls import masked
from protojobs.queue.queue import JobQueue

__all__ = ["NO_STORE_MEND", "PROGRAM", "Session", "queue_of"]

PROGRAM = "protojobs"

NO_STORE_MEND = (
    'Add --url sqlite:///jobs.db, or set PROTOJOBS_URL, or url = "sqlite:///jobs.db" in protojobs.toml;'
    " or name the JobQueue in your code: --app shop.jobs:queue."
)
# What may be copied into a shell: `protojobs ...`, or `When ...: protojobs ...`. What is quoted is not looked into.
_COMMAND = re.compile(r"""((?:[^'":]*: )?)(?P<command>protojobs [^'";(]+?|protojobs .+)(  \(.*\)|; .*|)""")
_ANY_APP = " --app your.module"  # in a command that core writes where it knows of no application
# Our commands in a sentence: at its begin, in backticks, or after a colon, a semicolon or a comma.
_IN_TEXT = re.compile(r"(^|`|[:;,] )protojobs (?=[a-z])")


class Session:
    """One run of the command line. Options fill it while they are parsed; commands ask it for what they need."""

    def __init__(self, program: str = PROGRAM) -> None:
        self.program = program
        self.arguments: tuple[str, ...] = ()
        self.url: str | None = None
        self.apps: list[str] = []
        self.is_json = False
        self.is_debug = False
        self._opened: list[tuple[Store, str]] = []

    @cached_property
    def out(self) -> Output:
        """Where to write."""
        return Output(is_json=self.is_json)

    def settings(self, changes: Mapping[str, object] | None = None) -> Settings:
        """The settings in force: the options, then the environment, then the configuration file."""
        settings = load_settings({"url": self.url, "app": tuple(self.apps) or None, **(changes or {})})
        if settings.plugins:  # modules, which the application may have beside its own
            look_here(source_of("plugins"))
        return settings

    @property
    def app_source(self) -> Path | None:
        """The settings file that names the applications; None where an option or the environment does."""
        return None if self.apps else source_of("app")

    @property
    def url_source(self) -> Path | None:
        """The settings file that names the store; None where an option, the environment or a JobQueue in code does."""
        is_own = self.url is not None or any(":" in name for name in self.settings().app)
        return None if is_own else source_of("url")

    def queue(self, *, needs_jobs: bool = False, changes: Mapping[str, object] | None = None) -> JobQueue:
        """The queue to work with. Looking into a store imports no application, unless only that knows the store.

        The store is that of `--url`, else that of a JobQueue named as `--app module:object`, else the configured url.
        """
        settings = self.settings(changes)
        is_known = settings.url is not None
        wanted = [name for name in settings.app if needs_jobs or (self.url is None and (":" in name or not is_known))]
        own = queue_of(wanted, self.app_source if wanted else None)
        if own is None:
            return JobQueue(self._open(settings.url), settings)
        overrides = {key: value for key, value in (changes or {}).items() if value is not None}
        if self.url is None and not overrides:
            return own
        driver = own.driver if self.url is None else self._open(self.url)
        return JobQueue(driver, replace(own.settings, **overrides), registry=own.registry, clock=own.clock)

    def store(self) -> Store:
        """The store, for looking into it."""
        return self.queue().driver

    def store_name(self, queue: JobQueue) -> str:
        """The store's address for people, without its password."""
        driver = queue.driver
        for opened, url in self._opened:
            if opened is driver:
                return masked(url)
        # Made in code, whatever url is configured beside it: it may say which store it is.
        is_silent = type(driver).__repr__ is object.__repr__
        return type(driver).__name__ if is_silent else masked(repr(driver).strip("<>"))

    def is_opened_here(self, queue: JobQueue) -> bool:
        """Whether its store was opened for this command, and not by code of the application."""
        return any(driver is queue.driver for driver, _ in self._opened)

    def to_type(self, mend: str) -> str:
        """How to mend something: where that is a command of ours, with the options that picked the store this time."""
        match = _COMMAND.fullmatch(mend)
        if match is None or match["command"].endswith("."):  # a sentence
            return self.named(mend)
        before, command, after = match.groups()
        picked = ["--url", masked(self.url)] if self.url else self._own_queues()
        if self.program != PROGRAM:
            command = self._without_app(command.removesuffix(_ANY_APP))
            picked = picked if self.url else []
        elif picked and picked[0] == "--app":
            command = command.removesuffix(_ANY_APP)
        return before + self.named(" ".join([command, *map(shlex.quote, picked)])) + after

    def named(self, text: str) -> str:
        """The same text, in which our commands begin as people type them in this program."""
        return _IN_TEXT.sub(lambda match: f"{match[1]}{self.program} ", text)

    def _without_app(self, command: str) -> str:
        """The command without the application that a program of another gives by itself."""
        given = {name for app in self.apps if ":" in app for name in (app, app.partition(":")[0])}
        return re.sub(r" --app (\S+)", lambda match: "" if match[1] in given else match[0], command)

    def _own_queues(self) -> list[str]:
        return [word for app in self.apps if ":" in app for word in ("--app", app)]

    def close(self) -> None:
        """Give back what was opened here."""
        while self._opened:
            try:
                self._opened.pop()[0].close()
            except DriverError:
                continue  # the command has said what there was to say

    def _open(self, url: str | None) -> Store:
        if url is None:
            raise ConfigurationError("No store is configured.", mend=NO_STORE_MEND)
        driver = create_driver(url)
        self._opened.append((driver, url))
        return driver


def queue_of(apps: Sequence[str], source: Path | None = None) -> JobQueue | None:
    """Import the applications (`source`: see load_app); return the JobQueue that one names as `module:object`."""
    queues = [queue for name in apps if (queue := load_app(name, source)) is not None]
    if len({id(queue) for queue in queues}) > 1:
        raise CommandFailed(
            Exit.USAGE, "The applications name more than one JobQueue.", mend="Leave :object away from all but one."
        )
    return queues[0] if queues else None
