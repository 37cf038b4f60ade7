"""`protojobs dashboard`: closed off loopback, and a server that starts, serves and stops."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from click.testing import CliRunner

from protojobs import create_driver
from protojobs.errors import ConfigurationError
from protojobs_dashboard import BasicAuth, TokenAuth
from protojobs_dashboard.command import auth_of, command

PROGRAM = [sys.executable, "-m", "protojobs", "dashboard"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PROTOJOBS_DASHBOARD")}
    return subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, text=True, timeout=60, env={**clean, **environment}, check=False
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.com"])
def test_off_loopback_it_refuses_to_start_without_authentication(host, monkeypatch, sqlite_url):
    monkeypatch.delenv("PROTOJOBS_DASHBOARD_AUTH", raising=False)
    monkeypatch.delenv("PROTOJOBS_DASHBOARD_TOKEN", raising=False)
    answer = CliRunner().invoke(command, ["--host", host, "--url", sqlite_url])
    assert isinstance(answer.exception, ConfigurationError)
    assert "open to whoever reaches" in str(answer.exception)
    for way in ("PROTOJOBS_DASHBOARD_AUTH", "PROTOJOBS_DASHBOARD_TOKEN", "SSH tunnel", "docs/how-to/dashboard.md"):
        assert way in answer.exception.mend


def test_the_refusal_has_words_and_the_exit_code_of_wrong_configuration(sqlite_url):
    answer = run("--host", "0.0.0.0", "--url", sqlite_url)
    assert answer.returncode == 2
    assert "PROTOJOBS_DASHBOARD_AUTH=user:password" in answer.stderr and "Traceback" not in answer.stderr


def test_the_application_is_imported_when_it_is_named(sqlite_url):
    answer = run("--app", "no_such_module_here", "--url", sqlite_url)
    assert answer.returncode == 2 and 'no module "no_such_module_here"' in answer.stderr


def test_a_store_that_is_not_there_is_told_at_once(tmp_path):
    answer = run("--url", f"sqlite:///{tmp_path / 'empty.db'}")
    assert answer.returncode == 8 and "migrate" in answer.stderr


def test_a_port_that_another_program_has_is_told(sqlite_url):
    driver = create_driver(sqlite_url)
    driver.setup()
    driver.close()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        answer = run("--port", str(port), "--url", sqlite_url)
    assert answer.returncode == 2
    assert answer.stderr.startswith(f"error: Nothing can listen at 127.0.0.1, port {port}: ")


def test_the_environment_names_the_authentication():
    assert auth_of("", "") is None
    assert isinstance(auth_of("ann:a long secret", ""), BasicAuth)
    assert isinstance(auth_of("", "a long secret"), TokenAuth)
    for user, token in (("ann", ""), ("ann:short", ""), ("", "short"), ("ann:a long secret", "a long secret")):
        with pytest.raises(ConfigurationError) as caught:
            auth_of(user, token)
        assert "a long secret" not in str(caught.value)


def test_it_serves_until_told_to_stop(sqlite_url):
    driver = create_driver(sqlite_url)
    driver.setup()
    driver.close()
    environment = {**os.environ, "PROTOJOBS_DASHBOARD_TOKEN": "a long secret"}
    server = subprocess.Popen(
        [*PROGRAM, "--port", "0", "--title", "Acme", "--url", sqlite_url],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    try:
        assert server.stderr is not None
        told = server.stderr.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+/", told)
        assert address is not None, told + server.stderr.read()
        request = urllib.request.Request(address.group(), headers={"Authorization": "Bearer a long secret"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 200 and "Acme" in answer.read().decode()
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(address.group(), timeout=30)
        assert refused.value.code == 401
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
        assert "Traceback" not in server.stderr.read()
    finally:
        server.kill()
        server.wait(10)
        if server.stderr is not None:
            server.stderr.close()
