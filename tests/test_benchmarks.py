"""The benchmark runs, and finds no job lost or doubled. What its figures are is not tested: the machine is shared."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytestmark = pytest.mark.slow  # run by `python3 dev.py test-slow`

ROOT = Path(__file__).resolve().parents[1]
PUSHES, DRAINS = ("push", "bulk"), ("drain1", "memory")
JOBS = 200


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what one short run wrote."""
    folder = tmp_path_factory.mktemp("bench")
    command = [sys.executable, str(ROOT / "benchmarks/run.py"), "--jobs", str(JOBS), "--rounds", "1"]
    command += ["--stores", "memory,sqlite", "--json", str(folder / "out.json"), "--svg", str(folder / "out.svg")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "out.txt").write_text(done.stdout)
    return folder


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark's own modules can be imported."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


def test_each_workload_has_its_ratio_to_the_limit(ran: Path) -> None:
    found = {
        (one["store"], one["workload"], one["limit"]): one
        for one in json.loads((ran / "out.json").read_text())["ratios"]
    }
    for_both = {(store, name, "raw") for store in ("memory", "sqlite") for name in (*PUSHES, *DRAINS, "latency")}
    assert set(found) == for_both | {
        ("sqlite", "drain2", "raw"),
        ("sqlite", "drain1", "raw-full"),
        ("sqlite", "drain2", "raw-full"),
    }
    for (_, workload, _), one in found.items():
        ours, theirs = one["ours"]["median"], one["theirs"]["median"]
        wanted = theirs / ours if workload in ("latency", "memory") else ours / theirs
        assert one["ratio"]["median"] == pytest.approx(wanted)


def test_no_job_is_lost_or_runs_twice(ran: Path) -> None:
    counted = [m for m in json.loads((ran / "out.json").read_text())["measurements"] if m["workload"] != "memory"]
    assert {(m["details"]["lost"], m["details"]["doubled"]) for m in counted} == {(0, 0)}
    assert {m["details"]["jobs"] for m in counted if m["workload"].startswith("drain")} == {JOBS}


def test_table_and_plot_show_each_ratio(ran: Path) -> None:
    ratios = json.loads((ran / "out.json").read_text())["ratios"]
    picture = ElementTree.fromstring((ran / "out.svg").read_text())
    bars = picture.findall("{http://www.w3.org/2000/svg}rect")
    assert len(bars) == len(ratios)
    assert all(float(bar.get("width", "0")) > 0 for bar in bars)
    table = (ran / "out.txt").read_text()
    assert all(f"{one['ours']['median']:,.0f}" in table for one in ratios if one["workload"] in PUSHES)
    assert all(title in table for title in ("push, one by one", "drain, 2 workers", "push to start", "memory after"))


def test_a_job_that_ran_twice_is_seen(tmp_path: Path, bench: None) -> None:
    import counted
    import processes
    import workloads

    (tmp_path / counted.DONE).write_bytes(time.time_ns().to_bytes(8, "little"))  # as if one had run before
    scene = processes.Scene("raw", "memory", "memory://benchmark", tmp_path, limit_s=30)
    found = workloads.drain1(scene, 50, 1.0)["drain1"]
    assert (found["jobs"], found["lost"], found["doubled"]) == (50, 0, 1)


@pytest.mark.parametrize("what", ["lost", "doubled"])
def test_a_lost_or_doubled_job_fails_the_run(
    what: str, bench: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import run
    import workloads

    monkeypatch.setitem(
        workloads.MEASURES, "push", lambda *_: {"push": {"value": 1.0, "lost": 0, "doubled": 0, what: 3}}
    )
    assert run.main(["--stores", "memory", "--workloads", "push", "--rounds", "1"]) == 1
    assert f"push on memory, protojobs: 3 jobs {what.upper()}" in capsys.readouterr().out


def test_a_worker_that_dies_is_told_with_its_last_words(
    bench: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import run

    monkeypatch.setattr(run, "OURS", "nobody")  # a subject that there is not: its process fails
    assert run.main(["--stores", "sqlite", "--workloads", "bulk", "--rounds", "1", "--jobs", "10"]) == 1
    assert "bulk on sqlite, nobody FAILED: setup gave no answer: StopIteration" in capsys.readouterr().out
