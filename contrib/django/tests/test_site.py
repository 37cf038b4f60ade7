"""A Django site with its own tests, run by `manage.py test` on each database: shop/cases_*.py say what is promised."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SITE = Path(__file__).parent / "site"
COMMAND_S = 300  # of one program that starts Django, on a machine where many others do so too
SLOW = pytest.mark.slow
SQLITE_ALONE = pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)  # where the database makes no difference
SQLITE_FIRST = pytest.mark.parametrize(
    "store_url",
    ["sqlite", pytest.param("postgresql", marks=SLOW), pytest.param("mariadb", marks=SLOW)],
    indirect=True,
)
pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def manage(store_url: str, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`manage("migrate")`: a command of the site whose database is a new, empty one of each kind in turn."""

    def run(*arguments: str, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "SITE_DATABASE": store_url, **more}
        command = [sys.executable, SITE / "manage.py", *arguments]
        ran = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=COMMAND_S, check=False
        )
        assert ran.returncode == code, ran.stdout + ran.stderr
        return ran

    return run


def run_cases(manage: Callable[..., subprocess.CompletedProcess[str]], **more: str) -> str:
    return manage("test", "-p", "cases_*.py", "shop", "--top-level-directory", str(SITE), **more).stderr


def cases_run(said: str) -> int:
    found = re.search(r"Ran (\d+) tests", said)
    return int(found[1]) if found else 0


class TestASite:
    @pytest.mark.parametrize("store_url", ["sqlite", "postgresql", pytest.param("mariadb", marks=SLOW)], indirect=True)
    def test_passes_its_own_tests_on_a_test_database(self, manage) -> None:
        assert cases_run(run_cases(manage)) >= 19

    @pytest.mark.slow
    @pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)  # whose times come with a zone
    def test_passes_them_without_time_zones(self, manage) -> None:
        assert cases_run(run_cases(manage, SITE_USE_TZ="0")) >= 19


class TestManage:
    @SQLITE_FIRST
    def test_migrate_makes_the_tables_and_the_second_time_does_nothing(self, manage) -> None:
        assert "Applying protojobs.0001... OK" in manage("migrate").stdout
        assert "Applying protojobs" not in manage("migrate").stdout
        assert "up to date" in manage("protojobs", "migrate").stderr

    @SQLITE_FIRST
    def test_a_job_of_jobs_py_is_pushed_and_worked_by_the_commands(self, manage) -> None:
        manage("migrate", "-v0")
        code = "from shop.models import Order; Order.objects.create(number=5); Order.objects.create(number=6)"
        manage("shell", "-c", code)
        manage("protojobs", "push", "order.send", '{"number": 5}')
        manage("protojobs", "push", "order.child", '{"number": 6}')
        ran = manage("protojobs", "worker", "orders", "--stop-when-empty")
        assert "2 done, 0 failed" in ran.stderr
        ran = manage(
            "shell", "-c", "from shop.models import Order; print(Order.objects.filter(is_sent=True).count(), 'sent')"
        )
        assert "2 sent" in ran.stdout

    @pytest.mark.slow
    @SQLITE_ALONE
    def test_workers_of_a_supervisor_know_the_sites_jobs(self, manage) -> None:
        manage("migrate", "-v0")
        manage("protojobs", "push", "order.send", '{"number": 5}')
        ran = manage("protojobs", "worker", "orders", "--stop-when-empty", "--processes", "1")
        assert "1 done, 0 failed" in ran.stderr

    @SQLITE_ALONE
    def test_hints_are_commands_of_manage_py(self, manage, store_url: str) -> None:
        site = f"python {SITE / 'manage.py'}"
        assert manage("protojobs", "jobs", "list", code=8).stderr == (
            f"error: There is no database {store_url} yet.\n  try: {site} protojobs migrate\n"
        )
        assert manage("protojobs", "worker", "-q", "orders", code=2).stderr == (
            'error: There is no option "-q".\n'
            f"  Queues are named without an option: {site} protojobs worker emails default.\n"
            f"  try: {site} protojobs worker --help\n"
        )
        assert manage("protojobs", "--help").stdout.startswith(f"Usage: {site} protojobs ")
        manage("migrate", "-v0")
        manage("protojobs", "push", "order.send", '{"number": 5}')
        doctor = manage("protojobs", "doctor", code=1).stdout
        assert [line.split("\t")[3] for line in doctor.splitlines()] == [
            f"{site} protojobs worker orders",
            f"{site} protojobs worker",
        ]

    @SQLITE_ALONE
    def test_exit_codes_are_those_of_protojobs(self, manage) -> None:
        assert "migrate" in manage("protojobs", "push", "order.send", '{"number": 5}', code=8).stderr
        assert "no command" in manage("protojobs", "wrok", code=2).stderr

    @SQLITE_ALONE
    def test_call_command_runs_it_too(self, manage) -> None:
        manage("migrate", "-v0")
        code = "from django.core.management import call_command; call_command('protojobs', 'status')"
        ran = manage("shell", "-c", code)
        assert "0 workers" in ran.stdout + ran.stderr

    @SQLITE_ALONE
    def test_check_tells_of_tables_that_lack_and_of_a_database_that_is_not_there(self, manage) -> None:
        assert "protojobs.W001" in manage("check", "--database", "default").stderr
        manage("migrate", "-v0")
        assert "no issues" in manage("check", "--database", "default").stdout
        told = manage("check", code=1, SITE_JOBS_IN="defualt").stderr
        assert "protojobs.E001" in told
        assert 'Did you mean "default"?' in told
