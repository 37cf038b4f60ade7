"""The units: read by systemd's own checker, and held against the code."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from files import DEPLOY, PROGRAM, SUPERVISING_S, arguments, parsed, settings_of, stop_s

import servers
from protojobs.cli.exits import Exit
from protojobs.config import Settings
from protojobs.worker.reports.health import STILL_MIN_S

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
WORKER = DEPLOY / "systemd" / "protojobs-worker@.service"
DASHBOARD = DEPLOY / "systemd" / "protojobs-dashboard.service"
EXPOSURE_MAX = 35  # of 100, by systemd's own count; without the hardening it is 92


def checker() -> tuple[str, dict[str, str]]:
    """The program, from this machine or from Debian's package, and its environment. It is never absent silently."""
    if found := shutil.which("systemd-analyze"):
        return found, {}
    try:
        root = servers.unpacked("systemd", ["systemd", "libsystemd-shared"], "usr/bin/systemd-analyze")
    except servers.Unavailable as error:
        pytest.fail(f"systemd-analyze is needed for this test: install the package systemd. ({error})")
    folders = [*root.glob("usr/lib/*linux*/systemd"), *root.glob("usr/lib/*linux*")]
    libraries = os.pathsep.join(map(str, folders))
    return str(root / "usr/bin/systemd-analyze"), {"LD_LIBRARY_PATH": libraries}


def check(*words: str | Path) -> tuple[int, str]:
    program, environment = checker()
    ran = subprocess.run(
        [program, *words], capture_output=True, text=True, timeout=60, env={**os.environ, **environment}
    )
    return ran.returncode, ran.stdout + ran.stderr


def placed(unit: Path, folder: Path) -> Path:
    """The unit as it would be installed here: an instance, and a program that exists."""
    copy = folder / unit.name.replace("@.", "@emails.")
    copy.write_text(unit.read_text().replace(PROGRAM, sys.executable))
    return copy


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_has_nothing_to_complain_of(unit: Path, tmp_path: Path) -> None:
    assert check("verify", "--man=no", placed(unit, tmp_path)) == (0, "")


def test_the_check_would_find_a_mistake(tmp_path: Path) -> None:
    unit = placed(WORKER, tmp_path)
    unit.write_text(unit.read_text().replace("KillMode=", "KillMde="))
    assert "KillMde" in check("verify", "--man=no", unit)[1]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_service_is_confined(unit: Path, tmp_path: Path) -> None:
    code, said = check(
        "security", "--no-pager", "--offline=true", f"--threshold={EXPOSURE_MAX}", placed(unit, tmp_path)
    )
    assert code == 0, said


def test_the_worker_has_the_time_to_stop_that_it_needs() -> None:
    settings = settings_of(WORKER.read_text())
    assert float(settings["TimeoutStopSec"][0]) >= stop_s() + SUPERVISING_S
    assert settings["KillMode"] == ["mixed"]


def test_the_watchdog_is_no_quicker_than_the_worker_gives_itself() -> None:
    settings = settings_of(WORKER.read_text())
    assert settings["Type"] == ["notify"]
    assert float(settings["WatchdogSec"][0]) >= max(Settings().lease, STILL_MIN_S)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_what_another_start_cannot_mend_is_not_started_again(unit: Path) -> None:
    codes = settings_of(unit.read_text())["RestartPreventExitStatus"][0].split()
    assert [int(code) for code in codes] == [Exit.USAGE, Exit.NOT_SUPPORTED]


def test_the_commands_exist_with_these_options() -> None:
    (worker,) = settings_of(WORKER.read_text())["ExecStart"]
    assert parsed(arguments(worker))["log_format"] == "json"
    (dashboard,) = settings_of(DASHBOARD.read_text())["ExecStart"]
    assert parsed(arguments(dashboard))["port"] == 8787
