"""`protojobs demo`: what a stranger sees first."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from urllib.request import urlopen

import pytest
from click.testing import CliRunner

from protojobs import JobQueue, create_driver
from protojobs_examples import _demo_shop, demo
from protojobs_examples.demo import command

MAX_S = 60  # the demo takes five seconds; this is for a machine that is busy


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """One run, in a pipe, as a script would start it."""
    folder = tmp_path_factory.mktemp("demo")
    foreign = {"MAIL_HOST": "mail.invalid", "MAIL_USER": "someone", "SHOP_SLOW": "1", "PROTOJOBS_CONCURRENCY": "1"}
    environment = {**os.environ, **foreign, "TMPDIR": str(folder)}
    program = "from protojobs_examples.demo import command; command()"
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=MAX_S, env=environment, cwd=folder
    )


class TestTheDemo:
    def test_keeps_its_promises(self, demonstration: subprocess.CompletedProcess[str]) -> None:
        assert demonstration.returncode == 0, demonstration.stdout + demonstration.stderr
        assert demonstration.stdout.count("  ok  ") == 7
        assert "of 232 jobs 231 completed and 1 failed; none was lost" in demonstration.stdout

    def test_tells_on_stderr_what_happens(self, demonstration: subprocess.CompletedProcess[str]) -> None:
        told = demonstration.stderr
        assert "SendEmailJob: attempt 2 failed" in told and "SendEmailJob: attempt 3 worked" in told
        assert "WriteInvoiceJob: attempt 2 failed, its last" in told
        assert "Traceback" not in told

    def test_shows_the_failed_job_and_where_it_failed(self, demonstration: subprocess.CompletedProcess[str]) -> None:
        assert re.search(r'File ".*demo_jobs\.py", line \d+, in handle', demonstration.stdout)
        assert "LookupError: customer 41 has no address: customers/41.json is missing" in demonstration.stdout

    def test_is_plain_text_in_a_pipe(self, demonstration: subprocess.CompletedProcess[str]) -> None:
        assert "\x1b" not in demonstration.stdout + demonstration.stderr

    def test_fits_a_terminal_of_80_columns(self, demonstration: subprocess.CompletedProcess[str]) -> None:
        lines = (demonstration.stdout + demonstration.stderr).splitlines()
        # Paths are as long as they are: those of this test's folder, and of the code in a traceback.
        assert [line for line in lines if len(line) > 80 and "/" not in line] == []

    def test_kills_a_worker_and_runs_its_job_again(self, demonstration: subprocess.CompletedProcess[str]) -> None:
        killed = re.search(r"kill -9 (\d+)", demonstration.stderr)
        folder = re.search(r"SHOP_FOLDER=(\S+)", demonstration.stdout)
        assert killed and folder
        first, second = (Path(folder[1]) / "deliveries.txt").read_text().splitlines()
        assert first == f"parcel 1: on its way with process {killed[1]}"
        assert second.startswith("parcel 1: on its way") and second != first
        assert "taken back from the worker that was killed" in demonstration.stderr

    def test_fires_each_time_of_a_schedule_once(self, demonstration: subprocess.CompletedProcess[str]) -> None:
        assert "3 times of the schedule came, and each had one job" in demonstration.stdout
        folder = re.search(r"SHOP_FOLDER=(\S+)", demonstration.stdout)
        assert folder
        counted = (Path(folder[1]) / "stock.txt").read_text().splitlines()
        first, second, third = sorted(map(datetime.fromisoformat, counted))  # three slots run as they please
        assert second - first == third - second == timedelta(seconds=1)

    def test_prints_commands_that_work_as_they_stand(self, demonstration: subprocess.CompletedProcess[str]) -> None:
        _, _, looking = demonstration.stdout.partition("Look into it")
        commands = [line for line in looking.splitlines() if line.startswith("  ")]
        assert len(commands) == 9
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        ran = subprocess.run(
            ["bash", "-e"],
            input="\n".join(commands),
            capture_output=True,
            text=True,
            timeout=MAX_S,
            env={**os.environ, "PATH": programs},
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        folder = re.search(r"SHOP_FOLDER=(\S+)", demonstration.stdout)
        assert folder
        assert (Path(folder[1]) / "invoices" / "41.txt").read_text() == "To Jo: please pay 99.50.\n"


class TestOnAnotherStore:
    def test_it_leaves_one_alone_that_has_jobs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        url = f"sqlite:///{tmp_path / 'mine.db'}"
        queue = JobQueue(create_driver(url))
        queue.driver.setup()
        queue.push("shop.add_up_order", {"order": 1, "prices": []})
        ran = CliRunner().invoke(command, ["--url", url])
        assert (ran.exit_code, "not empty" in ran.output) == (1, True)
        assert list(tmp_path.glob("protojobs-demo-*")) == []
        assert queue.stats().pending == 1
        queue.driver.close()

    def test_it_shows_no_password(self) -> None:
        shown = "\n".join(demo._exports("postgresql://me:hush@db/jobs", Path("/tmp/x")))
        assert "hush" not in shown

    def test_it_says_so_when_a_promise_is_broken(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(_demo_shop, "EMAILS", 3)  # among three customers nobody's server is busy
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        ran = CliRunner().invoke(command, ["--url", "memory://"])
        assert ran.exit_code == 1
        assert "BROKEN" in ran.stdout


class TestWithTheDashboard:
    @pytest.fixture
    def port(self) -> int:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            return one.getsockname()[1]

    def test_it_serves_the_demos_store_goes_on_trading_and_ends(
        self, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[int] = []

        def tell(*_: object) -> bool:
            with urlopen(f"http://127.0.0.1:{port}/", timeout=MAX_S) as page:
                seen.append(page.status)
            return True

        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        monkeypatch.setattr(demo, "tell", tell)
        ran = CliRunner().invoke(
            command, ["--dashboard", "--no-browser", "--port", str(port), "--duration", "1"], catch_exceptions=False
        )
        assert (ran.exit_code, seen) == (0, [200])
        assert f"http://127.0.0.1:{port}/" in ran.output
        (store,) = tmp_path.glob("protojobs-demo-*/jobs.db")
        queue = JobQueue(create_driver(f"sqlite:///{store}"))
        assert queue.stats("orders").total > 0 and queue.stats("emails").total > 0
        queue.driver.close()
        with socket.socket() as line:
            assert line.connect_ex(("127.0.0.1", port)) != 0

    def test_a_port_that_is_taken_is_said(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            ran = CliRunner().invoke(command, ["--dashboard", "--no-browser", "--port", str(port)])
        assert ran.exit_code == 1
        assert f"Something answers on port {port} already." in ran.output

    def test_where_it_is_not_installed_it_says_how_to_get_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("protojobs_examples._demo_dashboard.entry_points", lambda group: ())
        ran = CliRunner().invoke(command, ["--dashboard"])
        assert ran.exit_code == 1
        assert 'pip install "protojobs[dashboard]"' in ran.output

    def test_its_options_go_with_it_only(self) -> None:
        assert CliRunner().invoke(command, ["--duration", "5"]).exit_code == 2

    def test_no_browser_is_opened_where_there_is_no_screen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        opened: list[str] = []
        monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
        monkeypatch.setattr("sys.platform", "linux")
        for name in ("DISPLAY", "WAYLAND_DISPLAY"):
            monkeypatch.delenv(name, raising=False)
        assert not demo.opened("http://127.0.0.1:1/")
        monkeypatch.setenv("DISPLAY", ":0")
        assert demo.opened("http://127.0.0.1:1/")
        assert opened == ["http://127.0.0.1:1/"]
