"""The tests do not depend on how they were started: `nohup` and some CI runners have signals ignored."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
IGNORING = """
import os, signal, sys
for name in ("SIGINT", "SIGHUP", "SIGQUIT"):
    signal.signal(getattr(signal, name), signal.SIG_IGN)
os.execv(sys.argv[1], sys.argv[1:])
"""

pytestmark = pytest.mark.skipif(os.name != "posix", reason="elsewhere no signal is inherited")


def test_processes_of_tests_have_the_usual_signals_though_the_tests_were_started_with_them_ignored(
    tmp_path: Path,
) -> None:
    shows = "import signal; print([n for n in (1, 2, 3) if signal.getsignal(n) is signal.SIG_IGN])"
    test = tmp_path / "test_inner.py"
    test.write_text(
        f"import subprocess, sys\n\n\ndef test_it():\n"
        f"    seen = subprocess.run([sys.executable, '-c', {shows!r}], capture_output=True, text=True)\n"
        f"    assert seen.stdout.strip() == '[]'\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    ran = subprocess.run(
        [sys.executable, "-c", IGNORING, *command, "-c", str(ROOT / "pyproject.toml"), "-p", "conftest", str(test)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "1 passed" in ran.stdout, ran.stdout + ran.stderr


def test_and_here_too() -> None:
    shows = "import signal; print([n for n in (1, 2, 3) if signal.getsignal(n) is signal.SIG_IGN])"
    seen = subprocess.run([sys.executable, "-c", shows], capture_output=True, text=True, timeout=30)
    assert seen.stdout.strip() == "[]"
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
