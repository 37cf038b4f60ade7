"""Django 6, in an environment of a newer Python: Django's own tests of task backends, and those of the site."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parents[2]
SITE = TESTS / "site"
OURS = [part for folder in ("core", "drivers/sqlalchemy", "contrib/django") for part in ("-e", str(ROOT / folder))]
THEIRS = ["django>=6", "hatchling", "editables", "psycopg[binary]", "pymysql", "aiosqlite"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def run(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    ran = subprocess.run(
        words, env={**os.environ, **environment}, capture_output=True, text=True, timeout=600, check=False
    )
    assert ran.returncode == 0, f"{words}\n{ran.stdout}{ran.stderr}"
    return ran


def newer_python() -> str:
    for name in (sys.executable, "python3.14", "python3.13", "python3.12", "/usr/bin/python3"):
        path = shutil.which(name)
        asked = [path, "-c", "import sys; sys.exit(sys.version_info < (3, 12))"]
        if path and subprocess.run(asked, check=False, timeout=60).returncode == 0:
            return path
    pytest.fail("Django 6 needs a Python of 3.12 or newer, and there is none on PATH", pytrace=False)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The Python of an environment with Django 6 and our distributions."""
    folder = tmp_path_factory.mktemp("django6") / "venv"
    run(newer_python(), "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "-c", ROOT / "requirements/pins.txt"]
    run(*install, *THEIRS)
    run(*install, "--no-build-isolation", *OURS)
    yield python


def test_djangos_own_tests_of_task_backends_pass(python: Path, tmp_path: Path) -> None:
    download = [sys.executable, "-m", "pip", "--python", python, "download", "-q", "--no-deps", "--no-binary", "django"]
    version = run(python, "-m", "django", "--version").stdout.strip()
    run(*download, "-d", tmp_path, f"django=={version}")
    ran = run(python, TESTS / "run_django_tests.py", tmp_path)
    found = re.search(r"(\d+) of Django's tests ran", ran.stdout)
    assert found is not None
    assert int(found[1]) >= 48


def test_a_site_passes_its_own_tests(python: Path, store_url: str) -> None:
    labels = ["-p", "cases*.py", "shop", "--top-level-directory", SITE]
    ran = run(python, SITE / "manage.py", "test", *labels, SITE_DATABASE=store_url, PYTHONDONTWRITEBYTECODE="1")
    found = re.search(r"Ran (\d+) tests", ran.stderr)
    assert found is not None
    assert int(found[1]) >= 27
