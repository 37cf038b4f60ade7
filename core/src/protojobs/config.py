"""Settings: constructor, then environment `PROTOJOBS_*`, then `protojobs.toml` or pyproject.toml, then the defaults.

An unset variable is not a value. Unknown keys are errors with a suggestion; unknown `PROTOJOBS_*` variables a warning,
since they may be meant for another program or a plugin.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal, TypeVar, cast, get_args, get_origin

import msgspec

from protojobs.errors import ConfigurationError, OptionInvalid, did_you_mean, one_line, shown
from protojobs.jobs.cron_option import CATCH_UP_MAX_S, ScheduleSetting
from protojobs.names import check_count, check_name, check_seconds, check_served, check_zone
from protojobs.port.records import RESEND_WINDOW_S
from protojobs.port.urls import names_file

__all__ = ["ENV_PREFIX", "Settings", "kept_s", "load_settings", "plugin_settings", "settings_file", "source_of"]

ENV_PREFIX = "PROTOJOBS_"
_FILE_NAMES = ("protojobs.toml", "pyproject.toml")
_BORDERS = (".git", ".hg", ".jj", ".svn")  # what is above a project's repository is not of the project
# A path from some folder: not from the root, not from a Windows drive, not `:memory:`, no `file:` URI.
_RELATIVE = re.compile(r"((\w+)(?:\+\w+)?:///)(?![/:]|\w+:)([^?]+)(\?.*)?", re.ASCII | re.DOTALL)
_log = logging.getLogger("protojobs.config")
_S = TypeVar("_S", bound=msgspec.Struct)


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every setting with its default. Durations are seconds unless the text says otherwise."""

    url: str | None = None
    """The store, such as `sqlite:///jobs.db`; its scheme picks the driver."""
    app: tuple[str, ...] = ()
    """Modules to import so that their jobs are known: `["shop.jobs"]`, or `module:object`."""
    default_queue: str = "default"
    max_retries: int = 3
    """Runs after the first; 3 means at most four."""
    retry_delay: float = 60.0
    timeout: float = 60.0
    """For one run; 0 = none."""
    failed_job_retention: float = 168.0
    """Hours."""
    completed_job_retention: float = 24.0
    """Hours; cancelled jobs too."""
    queues: tuple[str, ...] = ()
    """What a worker serves that is not told: names in strict order, `mail.*`, or weights such as `urgent=5`. Empty:
    every queue that its jobs name, in fair turn."""
    concurrency: int = 8
    """Jobs that one worker runs at once."""
    executor: Literal["thread", "process"] = "thread"
    """Where plain functions run: in threads of the worker, or in child processes, which can be killed. A job's own
    `executor` wins; async jobs have an event loop."""
    lease: float = 60.0
    """A worker that has not been heard of for so long may lose its jobs to others."""
    poll_interval: float = 1.0
    """How long an idle worker trusts that the store will ring; docs/how-to/configuration.md."""
    shutdown_grace: float = 25.0
    """How long running jobs may go on after the first stop signal."""
    exit_bound: float = 10.0
    """A run that cannot be ended ends its process within this time; its retry waits as long."""
    push_timeout: float = 10.0
    """`push` answers within this time."""
    payload_bytes_max: int = 1024 * 1024
    settle: Literal["batch", "sync"] = "batch"
    """`sync` stores each result before its slot takes another job."""
    max_memory: int = 0
    """Bytes of memory, with children, beyond which a worker stops once its jobs are done; 0 = no limit."""
    timezone: str = "UTC"
    """The zone of times written without an offset, and of schedules that name none."""
    catch_up: float = 3600.0
    """How late a schedule's time may still fire, when nobody ticked; a schedule's own `catch_up` wins."""
    schedules: dict[str, ScheduleSetting] = {}
    """Recurring jobs, by id: tables `[schedules.nightly]` with `job`, `cron` or `every`; docs/how-to/schedules.md."""
    observe: bool = True
    """Whether workers note what their runs came to, for charts, timelines and error pages, where the store keeps it."""
    plugins: tuple[str, ...] = ()
    """Plugins without which nothing is pushed or run: modules, `module:object`, or names of installed ones."""
    plugins_disabled: tuple[str, ...] = ()
    """Names of plugins to leave out."""

    def __post_init__(self) -> None:
        check_name("default_queue", self.default_queue)
        if self.queues:
            check_served(self.queues)
        check_count("max_retries", self.max_retries, maximum=10_000)
        for field in ("retry_delay", "timeout", "failed_job_retention", "completed_job_retention"):
            check_seconds(field, getattr(self, field))
        for field in ("lease", "poll_interval", "shutdown_grace", "exit_bound", "push_timeout"):
            check_seconds(field, getattr(self, field), maximum=86_400.0)
        if self.lease < 1 or self.poll_interval <= 0:
            raise OptionInvalid(
                f"lease is {self.lease:g}, poll_interval {self.poll_interval:g}.", mend="lease is 1 or more."
            )
        check_seconds("catch_up", self.catch_up, maximum=CATCH_UP_MAX_S)
        check_count("concurrency", self.concurrency, minimum=1, maximum=10_000)
        check_count("payload_bytes_max", self.payload_bytes_max, minimum=1, maximum=8 * 1024 * 1024)
        check_count("max_memory", self.max_memory, maximum=2**62)
        check_zone("timezone", self.timezone)


_FIELDS = {field.name: field for field in msgspec.structs.fields(Settings)}
_LISTS = ("app", "queues", "plugins", "plugins_disabled")


def load_settings(
    given: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Settings:
    """The settings in force. Raises ConfigurationError that names the source and the key.

    A relative path to a file (of SQLite, or of a driver that says `url_names_file`) is one from the settings file that
    names it; elsewhere from the current folder.
    """
    here = folder or Path.cwd()
    path = settings_file(here)
    merged: dict[str, object] = {}
    in_file = _read(path) if path else {}
    if path is not None and path.parent != here and isinstance(url := in_file.get("url"), str):
        in_file = {**in_file, "url": _from_folder(path.parent, url)}
    for source, values, is_text in (
        (str(path), in_file, False),
        ("the environment", _from_environment(os.environ if environ is None else environ), True),
        ("the configuration given", {k: v for k, v in (given or {}).items() if v is not None}, False),
    ):
        for key, value in values.items():
            if key not in _FIELDS:
                raise ConfigurationError(
                    f'{source}: unknown setting "{one_line(key)}".', mend=did_you_mean(key, _FIELDS)
                )
            merged[key] = _converted(source, key, value, is_strict=not is_text)
    return cast("Callable[..., Settings]", Settings)(**merged)  # not by convert, which would hide our own errors


def _converted(source: str, key: str, value: object, *, is_strict: bool) -> object:
    if key == "schedules" and isinstance(value, Mapping):
        tables = cast("Mapping[str, object]", value).items()
        return {name: _schedule(f"{source}: schedules.{one_line(str(name))}", table) for name, table in tables}
    try:
        one = (value,) if key in _LISTS and isinstance(value, str) else value
        return msgspec.convert(one, type=_FIELDS[key].type, strict=is_strict)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        # A password may stand in a url of another type, and a schedule's data is nobody's business.
        given = f"of type {type(value).__name__}" if key in ("url", "schedules") else f"= {shown(value)}"
        unit = "hours" if key.endswith("_retention") else "seconds"
        mend = f"Durations are plain numbers of {unit}, sizes of bytes." if isinstance(value, str) else ""
        raise ConfigurationError(
            f"{source}: {key} {given} does not fit: {one_line(str(error))}.",
            mend='Write url = "sqlite:///jobs.db".' if key == "url" else mend,
        ) from None


def _schedule(where: str, table: object) -> ScheduleSetting:
    """One table of `schedules`. Its values are not shown: the data may be anything."""
    if isinstance(table, ScheduleSetting):
        return table
    if not isinstance(table, Mapping):
        raise ConfigurationError(
            f"{where} of type {type(table).__name__} is no table.", mend="Write a table with job, and cron or every."
        )
    fields = ScheduleSetting.__struct_fields__
    for name in cast("Mapping[object, object]", table):
        if name not in fields:
            raise ConfigurationError(
                f"{where}: unknown key {shown(name)}.",
                mend=did_you_mean(str(name), fields) or f"There are {', '.join(fields)}.",
            )
    try:
        return msgspec.convert(table, type=ScheduleSetting)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise ConfigurationError(f"{where} does not fit: {one_line(str(error))}.") from None


def plugin_settings(name: str, kind: type[_S], *, environ: Mapping[str, str] | None = None) -> _S | None:
    """For plugins: what the variables `PROTOJOBS_<NAME>_*` say, as `kind`; None when not one of them is set.

    A field `mail_to` is read from `PROTOJOBS_<NAME>_MAIL_TO`; a tuple's parts are separated by commas. Raises
    ConfigurationError that names the variable, and never shows a value that may be any text: it may be a secret.
    """
    prefix = f"{ENV_PREFIX}{name.upper()}_"
    fields = {prefix + field.name.upper(): field for field in msgspec.structs.fields(kind)}
    given: dict[str, object] = {}
    for variable, text in (os.environ if environ is None else environ).items():
        if not variable.startswith(prefix) or not text:
            continue
        if (field := fields.get(variable)) is None:
            raise ConfigurationError(
                f"{variable} is no setting of {name}.",
                mend=did_you_mean(variable, fields) or f"Known: {', '.join(fields)}.",
            )
        is_list = get_origin(field.type) is tuple
        parts = _parts(text) if is_list else text
        try:
            given[field.name] = msgspec.convert(parts, type=field.type, strict=False)
        except (msgspec.ValidationError, UnicodeEncodeError) as error:
            known = get_args(field.type) if get_origin(field.type) is Literal else ()
            mend = f"Known: {', '.join(map(str, known))}." if known else ""
            raise ConfigurationError(f"{variable} does not fit: {error}.", mend=mend) from None
    if not given:
        return None
    for variable, field in fields.items():
        if field.required and field.name not in given:
            raise ConfigurationError(f"{variable} is not set, and {name} needs it.")
    return kind(**given)


def settings_file(folder: Path) -> Path | None:
    """The nearest `protojobs.toml`, or pyproject.toml with a `[tool.protojobs]`, in `folder` or above it.

    What it names is imported, so a file that somebody else may have put there is passed over, with a warning.
    """
    for place in _within_borders(folder):
        for name in _FILE_NAMES:
            path = place / name
            if not path.is_file() or (name != "protojobs.toml" and "protojobs" not in _tool_table(path)):
                continue
            if not (why := _why_foreign(path, folder)):
                return path
            if path not in _passed_over:
                _passed_over.add(path)
                _log.warning("%s is passed over: %s", path, why)
    return None


_passed_over: set[Path] = set()  # told once


def _within_borders(folder: Path) -> Iterator[Path]:
    """The folder and those above it, up to the top of a repository or of a file system."""
    for place in (folder, *folder.parents):
        if place != folder and place.stat().st_dev != folder.stat().st_dev:
            return
        yield place
        if any((place / name).exists() for name in _BORDERS):
            return


def _why_foreign(path: Path, here: Path) -> str:
    """Why others may have written this file, or the code beside it; empty when they cannot.

    It must be owned by whoever runs this, by root, or by the owner of the current folder, whose code is run there
    anyway: a container's root works on the files of a developer. Above that folder nobody else may write to it.
    """
    if not hasattr(os, "geteuid"):  # Windows keeps no such owners
        return ""
    trusted = {os.geteuid(), 0, here.stat().st_uid}
    for status in (path.lstat(), path.stat()):  # a link of somebody else's would choose among our own files
        if status.st_uid not in trusted:
            return f"it belongs to another user (uid {status.st_uid}); take it over, or set PROTOJOBS_* variables"
    if path.parent != here and (path.stat().st_mode | path.parent.stat().st_mode) & stat.S_IWOTH:
        return "everybody may write to it, or to its folder: chmod o-w"
    return ""


def source_of(key: str, *, environ: Mapping[str, str] | None = None, folder: Path | None = None) -> Path | None:
    """The settings file that names `key`, unless the environment does, which wins."""
    path = settings_file(folder or Path.cwd())
    if path is None or (os.environ if environ is None else environ).get(ENV_PREFIX + key.upper()):
        return None
    return path if key in _read(path) else None


def _from_folder(folder: Path, url: str) -> str:
    """The URL, with a relative path to a file read from `folder`."""
    match = _RELATIVE.fullmatch(url)
    if match is None or not names_file(match[2]):
        return url
    return f"{match[1]}{(folder / match[3]).as_posix()}{match[4] or ''}"


def _tool_table(path: Path) -> dict[str, object]:
    table = _parse(path).get("tool")
    return cast("dict[str, object]", table) if isinstance(table, dict) else {}


def _read(path: Path) -> dict[str, object]:
    table = _parse(path) if path.name == "protojobs.toml" else _tool_table(path)["protojobs"]
    if not isinstance(table, dict):
        raise ConfigurationError(f"{path}: tool.protojobs is no table.", mend="Write one: [tool.protojobs].")
    return cast("dict[str, object]", table)


def _parse(path: Path) -> dict[str, object]:
    import tomllib  # only where there is a file to read

    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows begin with a byte order mark
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, OSError) as error:
        if path.name != "protojobs.toml":  # somebody else's broken file is not ours to complain about
            return {}
        if isinstance(error, OSError):
            raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from None
        raise ConfigurationError(f"{path} is not valid TOML: {one_line(str(error))}.") from None


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _from_environment(environ: Mapping[str, str]) -> dict[str, object]:
    values: dict[str, object] = {}
    for variable, text in environ.items():
        if not variable.startswith(ENV_PREFIX) or not text:  # empty is what compose files make of an unset variable
            continue
        key = variable.removeprefix(ENV_PREFIX).lower()
        if key in _FIELDS:
            values[key] = _parts(text) if key in _LISTS else text
        elif difflib.get_close_matches(key, _FIELDS, n=1, cutoff=0.8):
            _log.warning("%s is no setting of protojobs. %s", variable, did_you_mean(key, _FIELDS))
    return values


def kept_s(retention_h: float) -> float:
    """For how many seconds after its end a job is kept where `retention_h` is configured.

    At least the time for which a push may be sent again: a job ends after it came, so whatever ended longer ago than
    that also came longer ago.
    """
    return max(retention_h * 3600.0, RESEND_WINDOW_S)
