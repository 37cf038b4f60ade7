"""`protojobs dev`: real processes, real edits, and one Ctrl-C for all of it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import watchfiles
from watchfiles import Change

from protojobs import job

LONG_S = 40.0  # for whatever must happen; only a failure waits so long

APP = """
import time
from pathlib import Path
from protojobs import job

@job(name="dev.mark", queue="marks")
def mark(seconds: float = 0):
    Path("mark").write_text("VERSION")
    ends = time.monotonic() + seconds
    while time.monotonic() < ends: time.sleep(0.02)
"""


@job(name="dev.mark", queue="marks")
def mark(seconds: float = 0) -> None:
    """What is pushed; the worker runs that of `app`."""


def write(version: str, text: str = APP) -> None:
    Path("app.py").write_text(text.replace("VERSION", version))


def marked() -> str:
    return Path("mark").read_text() if Path("mark").exists() else ""


def until(said: str, is_so: Callable[[], bool]) -> None:
    ends = time.monotonic() + LONG_S
    while not is_so():
        assert time.monotonic() < ends, f"in vain waited until {said}"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in (Path(f"/proc/{pid}/status").read_text() if sys.platform == "linux" else "")


@pytest.fixture
def dev(start, url):
    """`dev()` -> the process; its application is `app`, version one."""
    write("one")

    def run(*words: str):
        return start("dev", "--app", "app", *words)

    return run


def ready(process) -> int:
    """Wait until its worker takes jobs, and answer the worker's process id."""
    for line in process.started.stdout:
        if found := re.match(r"dev +\| worker (\d+) takes jobs", line):
            return int(found[1])
    pytest.fail(f"no worker: {process.ended()}")


def interrupt(process) -> None:
    process.started.send_signal(signal.SIGINT)


def test_it_starts_anew_when_the_code_changes_and_a_job_that_is_cut_short_runs_again(dev, queue) -> None:
    process = dev("--no-dashboard")
    first = ready(process)
    job_id = queue.push(mark.bind(60))
    until("the job runs", lambda: marked() == "one")
    write("two")
    process.says("app.py changed: the worker starts anew")
    assert ready(process) != first
    until("the new code runs", lambda: marked() == "two")
    assert queue.get(job_id).attempts == 1  # what was cut short counts as none
    interrupt(process)
    ended = process.ended()
    assert ended.code == 0
    assert "SIGINT: ending; running jobs get 2 s." in ended.err
    assert not is_alive(first)
    assert (queue.get(job_id).status, queue.get(job_id).attempts) == ("pending", 0)


def test_code_that_cannot_be_imported_is_told_and_mended(dev) -> None:
    write("one", "this is no Python")
    process = dev("--no-dashboard")
    process.says('error: Importing "app" failed.')
    process.says("it starts again when the code has changed")
    write("two")
    ready(process)


def test_without_reload_it_ends_when_the_worker_cannot_start(dev) -> None:
    write("one", "this is no Python")
    ended = dev("--no-dashboard", "--no-reload").ended()
    assert ended.code == 2
    assert 'worker    | error: Importing "app" failed.' in ended.out


def test_a_worker_that_is_killed_is_started_again(dev) -> None:
    process = dev("--no-dashboard", "--no-reload")
    first = ready(process)
    os.kill(first, signal.SIGKILL)
    process.says(f"worker {first} was ended by signal 9; again in 2 s")
    assert ready(process) != first


def test_the_worker_ends_when_dev_is_killed(dev) -> None:
    process = dev("--no-dashboard")
    worker = ready(process)
    process.started.kill()
    until("the worker has ended", lambda: not is_alive(worker))


@pytest.fixture
def port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=["Ctrl-C", "the terminal is closed"])
def test_the_dashboard_is_there_and_ends_with_it(dev, port, number) -> None:
    process = dev("--port", str(port))
    process.says(f"dashboard at http://127.0.0.1:{port}/")
    until("the dashboard answers", lambda: answers(port))
    ready(process)
    process.started.send_signal(number)
    ended = process.ended()
    assert ended.code == 0
    assert f"{number.name}: ending" in ended.err
    assert not answers(port)


def test_the_dashboard_ends_when_dev_is_killed(dev, port) -> None:
    process = dev("--port", str(port))
    process.says("The dashboard is at")  # else it ends because nobody hears that
    until("the dashboard answers", lambda: answers(port))
    process.started.kill()
    until("the dashboard has ended", lambda: not answers(port))


def test_without_the_dashboard_installed_it_says_how_to_get_it(monkeypatch, type_, url) -> None:
    monkeypatch.setattr("protojobs.cli.commands.dev.entry_points", lambda group: ())
    monkeypatch.setenv("PYTHONUNBUFFERED", "")  # which dev sets for its children
    write("one", "this is no Python")
    typed = type_("dev", "--app", "app", "--no-reload")
    assert typed.code == 2
    assert 'there is no dashboard here: pip install "protojobs[dashboard]"' in typed.out


def test_without_watchfiles_it_says_how_to_get_it(monkeypatch, type_, url) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    monkeypatch.setenv("PYTHONUNBUFFERED", "")
    typed = type_("dev")
    assert typed.code == 2
    assert 'pip install "protojobs[dev]"' in typed.err


def test_what_is_wrong_with_the_store_or_the_folders_is_said_at_once(monkeypatch, type_, url) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", "")
    assert type_("dev", "--url", "sqlite:///new.db").code == 8
    typed = type_("dev", "--watch", "nowhere")
    assert typed.code == 2
    assert "There is no folder nowhere to watch." in typed.err


def test_a_watch_that_ends_is_told_and_no_worker_waits_for_it(monkeypatch, type_, url) -> None:
    def limited(*_folders: object, **_options: object) -> Iterator[set[tuple[Change, str]]]:
        raise OSError("OS file watch limit reached")
        yield set()

    monkeypatch.setattr(watchfiles, "watch", limited)
    monkeypatch.setenv("PYTHONUNBUFFERED", "")
    write("one", "this is no Python")
    typed = type_("dev", "--app", "app", "--no-dashboard")
    assert typed.code == 2
    assert "dev       | changes are not seen any more: OS file watch limit reached." in typed.out


WATCHES = """
import os, platform, sys, time
from pathlib import Path
from protojobs.cli.development.code_changes import CodeChanges

folder = Path(sys.argv[1])
if os.getuid() == 0:  # who may read everything
    import watchfiles.main
    watchfiles.main._default_force_polling(None)
    os.setgid(65534)
    os.setuid(65534)
changes, ends = CodeChanges([folder]), time.monotonic() + 20
for name in ("above.py", "a/beside.py", "z/below.py", "z/a/deep.py", "z/z/deep.py"):
    seen = ""
    while name not in seen and not changes.lost and time.monotonic() < ends:
        (folder / name).write_text(str(time.monotonic()))
        time.sleep(0.2)
        seen = changes.take()
    if name not in seen:
        print(name, changes.lost)
"""


def test_what_stands_beside_an_unreadable_folder_is_watched() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own can be entered by nobody else
        folder = Path(name)
        for place in ("a", "m/closed", "z/a", "z/m/closed", "z/z"):
            (folder / place).mkdir(parents=True)
        for place in ("", "a", "z", "z/a", "z/z"):
            (folder / place).chmod(0o777)
        for place in ("m", "z/m"):
            (folder / place).chmod(0o700 if os.getuid() == 0 else 0)
        ran = subprocess.run([sys.executable, "-c", WATCHES, name], capture_output=True, text=True, timeout=60)
        for place in ("m", "z/m"):
            (folder / place).chmod(0o700)
    assert (ran.stdout, ran.stderr) == ("", "")


def test_what_the_processes_write_is_inert(capsys) -> None:
    from protojobs.cli.development.prefixed_output import PrefixedOutput

    PrefixedOutput().say("worker", "a \x1b[31mred\x07 line\nand\tanother")
    assert capsys.readouterr().out == "worker    | a \\x1b[31mred\\x07 line\nworker    | and another\n"
