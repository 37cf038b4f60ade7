"""dev.py and .ci/run: what a clone's first command promises."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def dev() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dev", ROOT / "dev.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_needs_the_standard_library_only() -> None:
    tree = ast.parse((ROOT / "dev.py").read_text())
    named = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    named |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in named} <= sys.stdlib_module_names


def test_a_wrong_word_is_answered_with_the_right_ones() -> None:
    ran = subprocess.run([sys.executable, ROOT / "dev.py", "tset"], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2
    assert 'unknown command "tset"' in ran.stderr
    assert "python3 dev.py test" in ran.stderr


def test_once_set_up_it_costs_next_to_nothing() -> None:
    began = time.monotonic()
    environment = {**os.environ, "PROTOJOBS_VENV": sys.prefix}
    subprocess.run([sys.executable, ROOT / "dev.py", "run", sys.executable, "-c", ""], check=True, env=environment)
    assert time.monotonic() - began < 5  # 0.1 s on an idle machine; a set-up would take longer than this


@pytest.mark.parametrize(
    ("line", "is_a_breach"),
    [
        ("url = 'https:/" + "/index.example.org/simple/'", True),
        ("https:/" + "/files.example.org/packages/ab/cd/x.whl", True),
        ("pip install --index" + "-url x", True),
        ("pip install --find" + "-links=/srv/wheels x", True),
        ("see https:/" + "/docs.example.org/en/latest/", False),
        ("redis:/" + "/127.0.0.1:6379/0", False),
    ],
)
def test_a_registry_host_in_a_file_is_found(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str, is_a_breach: bool
) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "notes.txt").write_text(f"{line}\n")
    monkeypatch.setattr(dev, "ROOT", tmp_path)
    assert dev.no_registry_host() == (1 if is_a_breach else 0)


@pytest.mark.parametrize(("failing", "status"), [("", 0), ("check", 1), ("test", 1)])
def test_ci_runs_both_and_fails_if_either_does(tmp_path: Path, failing: str, status: int) -> None:
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci/run").write_text((ROOT / ".ci/run").read_text())
    (tmp_path / "dev.py").write_text(f"import sys; print('ran', sys.argv[1]); sys.exit(sys.argv[1] == {failing!r})")
    ran = subprocess.run(["bash", tmp_path / ".ci/run"], capture_output=True, text=True, timeout=60)
    assert ran.returncode == status
    assert ran.stdout.splitlines()[:2] == ["ran check", "ran test"]
    assert os.access(ROOT / ".ci/run", os.X_OK)
