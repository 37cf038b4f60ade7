"""Runs pytest on planted classes in a process of its own: the kit inside the kit's tests."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as Xml
from collections.abc import Callable
from pathlib import Path

import pytest

PLANTED = Path(__file__).with_name("planted.py")


@pytest.fixture
def outcomes(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """`outcomes("TestHonest", "-k", "honest")`: the tests that ran -> passed, failed or skipped (xfail included)."""

    def run(suite: str, *options: str, file: Path = PLANTED) -> dict[str, str]:
        settings, report = tmp_path / "pytest.ini", tmp_path / "report.xml"
        settings.write_text("[pytest]\n")
        command = [sys.executable, "-m", "pytest", "-q", "-c", str(settings), "--rootdir", str(tmp_path)]
        command += ["--noconftest", "-p", "no:cacheprovider", f"--junitxml={report}", "--import-mode=importlib"]
        environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        environment.pop("PYTEST_ADDOPTS", None)
        command += [*options, f"{file}::{suite}"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=tmp_path, env=environment)
        assert report.exists(), ran.stdout + ran.stderr
        found: dict[str, str] = {}
        for case in Xml.parse(report).iter("testcase"):
            kinds = {child.tag for child in case}
            bad = kinds & {"failure", "error"}
            found[case.attrib["name"].removeprefix("test_")] = (
                "failed" if bad else "skipped" if "skipped" in kinds else "passed"
            )
        assert found, ran.stdout + ran.stderr
        return found

    return run
