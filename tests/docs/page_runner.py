"""Runs the blocks of one page in order, as a reader would who types them all. Started by test_pages.py, one per page.

A folder of its own is the reader's. Python blocks share one namespace in this process. Commands run in children that
were forked before any of the page's own code was loaded, on a terminal of their own, so they print what a person sees.
Takes the page as JSON on stdin; answers on stdout with a complaint for each block that is wrong.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import io
import json
import os
import pty
import re
import runpy
import select
import shlex
import signal
import socket
import sys
import time
import tomllib
import traceback
import types
from pathlib import Path
from typing import IO

COMMAND_S = 90.0  # no command of a page takes longer, on a busy machine
QUIET_S = 1.0  # a worker that has said nothing for so long is idle: press Ctrl-C where the page shows ^C
TERMINAL = {"COLUMNS": "120", "LINES": "40", "TERM": "dumb", "NO_COLOR": "1"}

_ID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\b")
_LOOSE = (  # what differs from run to run, and how both sides write it for the comparison
    (re.compile(r"\x1b\[[0-9;]*m"), ""),
    (_ID, "ID"),
    (
        re.compile(r"(\b[A-Z][a-z]{2} )?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| UTC|[+-]\d\d:\d\d)"),
        "TIME",
    ),
    (re.compile(r"\b(now|(in )?\d+[smhd]( ago)?)(?=\W|$)"), "AGE"),
    (re.compile(r"\b\d+\.\d+ s\b"), "N s"),
    (re.compile(r"\bpid \d+"), "pid N"),
    (re.compile(r"\s+"), " "),
)


class Wrong(Exception):
    """What a page says is not so."""


def main() -> None:
    """Run the page on stdin."""
    page = json.load(sys.stdin)
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the page's code prints past sys.stdout is for the test's log
    import protojobs.cli.commands.worker  # noqa: F401  (loaded once, for all commands)
    import protojobs_sqlalchemy.sqlite  # noqa: F401

    reader = Reader(page["name"], Commands())
    for block in page["blocks"]:
        try:
            reader.take(block)
        except Wrong as wrong:
            answer.write(f"{page['name']}, line {block['line']}: {wrong}\n")
    answer.close()


class Reader:
    """Somebody who follows a page step by step."""

    def __init__(self, page: str, commands: Commands) -> None:
        self._page = page
        self._commands = commands
        self._ids: dict[str, str] = {}  # an id that the page shows -> the one that it is in this run
        self._printed = ""
        self._code = 0
        name = re.sub(r"\W", "_", Path(page).stem).lower()
        self._module = types.ModuleType(f"{name}_page" if importlib.util.find_spec(name) else name)
        sys.modules[self._module.__name__] = self._module
        sys.path.insert(0, os.getcwd())

    def take(self, block: dict[str, str]) -> None:
        """Do what the block shows. Raises Wrong."""
        kind, text = block["kind"], block["text"]
        if block["title"]:
            path = Path(block["title"])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        match kind:
            case "python" if block["title"]:
                _compiled(text, block["title"])
            case "python":
                self._python(text, int(block["line"]))
            case "output":
                self._compare(text, self._printed)
            case "console":
                self._console(text)
            case "toml":
                _toml(text, block["title"])
            case _:
                raise Wrong(f"a block of kind {kind!r} cannot be run; fence it as text")

    def _python(self, text: str, line: int) -> None:
        printed = io.StringIO()
        code = _compiled("\n" * (line - 1) + text, self._page)  # tracebacks show the page's own lines
        try:
            with contextlib.redirect_stdout(printed):
                exec(code, vars(self._module))
        except BaseException as error:
            raise Wrong(f"it raises\n{traceback.format_exc()}") from error
        self._printed = printed.getvalue()

    def _console(self, text: str) -> None:
        for number, (line, expected) in enumerate(steps := _steps(text)):
            shown = next((after for after, _ in steps[number + 1 : number + 2]), "")
            printed = self._command(self._with_ids(line), presses_ctrl_c="^C" in expected.split("\n"))
            self._compare(expected.replace("^C\n", ""), printed, line)
            if self._code and not line.startswith("echo") and shown != "echo $?":
                raise Wrong(
                    f"$ {line}\nexits with {self._code}, and the page does not say so by `$ echo $?`\n{printed}"
                )

    def _command(self, line: str, *, presses_ctrl_c: bool) -> str:
        words = shlex.split(line)
        match words:
            case ["echo", "$?"]:
                return f"{self._code}\n"
            case ["export", *settings]:
                os.environ.update(dict(setting.split("=", 1) for setting in settings))
                return ""
            case ["sleep", seconds]:
                time.sleep(float(seconds))
                return ""
            case ["cd", folder]:
                os.chdir(folder)
                return ""
            case ["pip", "install", folder]:
                return _pretend_install(Path(folder))
            case [("protojobs" | "python3"), *_]:
                self._code, printed = self._commands.run(words, presses_ctrl_c=presses_ctrl_c)
                return printed
            case _:
                raise Wrong(f"$ {line}\nis nothing that the tests can run")

    def _with_ids(self, line: str) -> str:
        for shown, real in self._ids.items():
            line = line.replace(shown, real)
        return line

    def _compare(self, expected: str, printed: str, command: str = "") -> None:
        """Line by line, whatever differs from run to run left out; a line `...` stands for any lines."""
        wanted = [line for line in expected.splitlines() if line.strip()]
        there = [line for line in printed.splitlines() if _loose(line)]
        pairs = _aligned([_loose(line) for line in wanted], [_loose(line) for line in there])
        if pairs is None:
            what = f"$ {command}\n" if command else ""
            raise Wrong(f"{what}the page shows\n{expected}\nand it is\n{printed}")
        for here, other in pairs:
            self._ids.update(zip(_ID.findall(wanted[here]), _ID.findall(there[other]), strict=True))


class Commands:
    """A child that knows nothing of the page, and forks once more for each command."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        if os.fork() == 0:
            ours.close()
            with theirs, theirs.makefile("rw") as channel:
                _serve(channel)
            os._exit(0)
        theirs.close()
        self._channel = ours.makefile("rw")

    def run(self, words: list[str], *, presses_ctrl_c: bool) -> tuple[int, str]:
        """The exit code, and what was printed on the terminal."""
        request = {"words": words, "environ": dict(os.environ), "folder": os.getcwd(), "ctrl_c": presses_ctrl_c}
        self._channel.write(json.dumps(request) + "\n")
        self._channel.flush()
        code, printed = json.loads(self._channel.readline())
        return code, printed


def _serve(channel: IO[str]) -> None:
    for line in channel:
        request = json.loads(line)
        pid, terminal = pty.fork()
        if pid == 0:
            _be(request["words"], request["environ"], request["folder"])
        printed = _read(pid, terminal, presses_ctrl_c=request["ctrl_c"])
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        channel.write(json.dumps([code, printed.decode().replace("\r\n", "\n")]) + "\n")
        channel.flush()


def _read(pid: int, terminal: int, *, presses_ctrl_c: bool) -> bytes:
    printed = b""
    ends = time.monotonic() + COMMAND_S
    while time.monotonic() < ends:
        if not select.select([terminal], [], [], QUIET_S)[0]:
            if presses_ctrl_c and printed:
                os.kill(pid, signal.SIGINT)
                presses_ctrl_c = False
            continue
        try:
            part = os.read(terminal, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not part:
            break
        printed += part
    else:
        os.kill(pid, signal.SIGKILL)
        printed += f"\n(killed after {COMMAND_S:g} s)\n".encode()
    os.close(terminal)
    return printed


def _be(words: list[str], environ: dict[str, str], folder: str) -> None:
    """Become the command. Does not return."""
    code = 1
    try:
        program, *arguments = words
        os.environ.clear()
        os.environ.update(environ, **TERMINAL)
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        sys.path[:0] = _paths(os.environ)
        if program == "protojobs":
            from protojobs.cli import main as command_line

            sys.argv = ["protojobs", *arguments]
            code = command_line(arguments)
        else:
            sys.argv = arguments
            sys.path.insert(0, os.getcwd())
            runpy.run_path(arguments[0], run_name="__main__")
            code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()  # a command ends like any program, leaving its lease; what it forked from does not
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _paths(environ: os._Environ[str]) -> list[str]:
    return [path for path in environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def _pretend_install(folder: Path) -> str:
    """What `pip install` of a one-module distribution leaves behind. The real one runs in tests/packaging."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    site = folder.absolute().parent / "site"
    facts = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project.get("entry-points", {}).items()
    points = [f"[{group}]\n" + "".join(f"{n} = {where}\n" for n, where in named.items()) for group, named in groups]
    (facts / "entry_points.txt").write_text("\n".join(points))
    for module in folder.glob("*.py"):
        (site / module.name).write_text(module.read_text(encoding="utf-8"))
    os.environ["PYTHONPATH"] = str(site)
    sys.path.insert(0, str(site))
    return ""


def _compiled(text: str, name: str) -> types.CodeType:
    try:
        return compile(text, name, "exec")
    except SyntaxError as error:
        raise Wrong(f"it is no Python: {error}") from error


def _toml(text: str, title: str) -> None:
    """Settings are loaded as protojobs would; any other table must be valid."""
    from protojobs.config import load_settings

    parsed = tomllib.loads(text)
    if Path(title).name == "pyproject.toml" and "protojobs" not in parsed.get("tool", {}):
        return
    folder = Path("toml")
    folder.mkdir(exist_ok=True)
    name = "pyproject.toml" if "tool" in parsed else "protojobs.toml"
    (folder / name).write_text(text, encoding="utf-8")
    try:
        load_settings(environ={}, folder=folder.absolute())
    except Exception as error:
        raise Wrong(f"these settings are refused: {error}") from error
    finally:
        (folder / name).unlink()


def _steps(text: str) -> list[tuple[str, str]]:
    """A console block as pairs of a command and what it prints."""
    steps: list[tuple[str, str]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            steps.append((line[2:], ""))
        elif steps:
            steps[-1] = (steps[-1][0], f"{steps[-1][1]}{line}\n")
        else:
            raise Wrong("a console block begins with `$ `")
    return steps


def _loose(line: str) -> str:
    line = line.replace(socket.gethostname(), "my-host").replace(os.getcwd(), "/home/jo/shop")
    for pattern, word in _LOOSE:
        line = pattern.sub(word, line)
    return line.strip()


def _aligned(wanted: list[str], there: list[str]) -> list[tuple[int, int]] | None:
    """Pairs of places of equal lines, where `...` has skipped any number; None when they do not fit."""
    if not wanted:
        return None if there else []
    if wanted[0] == "...":
        for skipped in range(len(there) + 1):
            if (rest := _aligned(wanted[1:], there[skipped:])) is not None:
                return [(here + 1, other + skipped) for here, other in rest]
        return None
    if not there or wanted[0] != there[0]:
        return None
    rest = _aligned(wanted[1:], there[1:])
    return None if rest is None else [(0, 0), *((here + 1, other + 1) for here, other in rest)]


if __name__ == "__main__":
    main()
