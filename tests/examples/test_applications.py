"""The applications of examples/ that need a server: the commands of their READMEs are typed in a fresh folder, on a
PostgreSQL of their own.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
COMMAND_MAX_S = 180
WAIT_S = 120
SERVES = (
    "uvicorn ",
    "protojobs worker",
    "flask --app shop run",
    "flask --app shop protojobs worker",
    "python manage.py runserver",
    "python manage.py protojobs worker",
)
PASSED = re.compile(r"\b\d passed|^OK$", re.MULTILINE)
PASSWORD = "a long secret"
CONFIRMED = re.compile(r'"is_confirmed":\s*true')


class Terminals:
    """What somebody does who follows the README of a folder: commands that end, and two that stay."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment

    def type(self, block: str) -> str:
        """Run the commands; what they print."""
        ran = subprocess.run(
            ["bash", "-ec", block],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_MAX_S,
        )
        assert ran.returncode == 0, f"{block}\n{ran.stdout}"
        return ran.stdout

    @contextmanager
    def staying(self, block: str, log: Path) -> Iterator[None]:
        """Run a command that stays, meanwhile; it must end well when it is told to."""
        with log.open("w") as output:
            process = subprocess.Popen(
                ["bash", "-ec", f"exec {block.strip()}"],
                cwd=self.folder,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            yield
            assert process.poll() is None, log.read_text()
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
                raise


def blocks(readme: str) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", readme, flags=re.MULTILINE | re.DOTALL)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def wait_for(url: str, log: Path) -> None:
    """Until something answers there."""
    ends = time.monotonic() + WAIT_S
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            assert time.monotonic() < ends, log.read_text()
            time.sleep(0.1)
        else:
            return


def with_a_password(url: str) -> str:
    """The dashboard, for the user and the password of the README."""
    command = ["curl", "--silent", "--user", f"ops:{PASSWORD}", url]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=COMMAND_MAX_S, check=False).stdout


def through_the_admin(site: str) -> str:
    """The dashboard, for who signs in at the page to which it sends the browser."""
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    with browser.open(f"{site}/admin/jobs/", timeout=COMMAND_MAX_S) as login:
        assert urllib.parse.urlsplit(login.url).path == "/admin/login/"
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', login.read().decode())
        assert token is not None
        given = {"csrfmiddlewaretoken": token[1], "username": "ops", "password": PASSWORD, "next": "/admin/jobs/"}
        form = urllib.parse.urlencode(given).encode()
        with browser.open(urllib.request.Request(login.url, form), timeout=COMMAND_MAX_S) as inside:
            assert urllib.parse.urlsplit(inside.url).path == "/admin/jobs/"
            return inside.read().decode()


@pytest.mark.timeout(600)  # several programs that start, on a machine that may be busy
@pytest.mark.parametrize(
    "folder",
    ["fastapi", pytest.param("flask", marks=pytest.mark.slow), pytest.param("django", marks=pytest.mark.slow)],
)
def test_its_readme_leads_to_a_shop_that_works(
    folder: str, tmp_path: Path, make_store_url: Callable[[str], str]
) -> None:
    here = tmp_path / "fresh"
    shutil.copytree(EXAMPLES / folder, here, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
    port = free_port()
    readme = (here / "README.md").read_text()
    assert "8000" in readme
    scripts = [block.replace("8000", str(port)) for block in blocks(readme)]
    setup, api, worker, orders = scripts
    assert api.startswith(SERVES)
    assert worker.startswith(SERVES)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PROTOJOBS_", "PYTEST_"))}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}",
        "SHOP_OPS_PASSWORD": PASSWORD,
        "DJANGO_SUPERUSER_USERNAME": "ops",
        "DJANGO_SUPERUSER_EMAIL": "ops@example.com",
        "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
        "DATABASE_URL" if folder == "django" else "PROTOJOBS_URL": make_store_url("postgresql"),
    }
    terminals = Terminals(here, environment)
    assert PASSED.search(terminals.type(setup))
    api_log, worker_log = tmp_path / "api.log", tmp_path / "worker.log"
    with terminals.staying(api, api_log), terminals.staying(worker, worker_log):
        wait_for(f"http://127.0.0.1:{port}/orders/0", api_log)
        number = re.search(r'"order":\s*(\d+)', terminals.type(orders.splitlines()[0]))
        assert number is not None
        look = f"curl --silent --show-error http://127.0.0.1:{port}/orders/{number[1]}"
        assert orders.splitlines()[-1].rpartition("/")[0] == look.rpartition("/")[0]
        ends = time.monotonic() + WAIT_S
        while not CONFIRMED.search(terminals.type(look)):
            assert time.monotonic() < ends, worker_log.read_text()
            time.sleep(0.1)
        site = f"http://127.0.0.1:{port}"
        inside = through_the_admin(site) if folder == "django" else with_a_password(f"{site}/ops/jobs/")
        assert "<html" in inside
    assert f"confirmed order {number[1]} to jo@example.com" in worker_log.read_text()
    assert "told to stop" in worker_log.read_text()
