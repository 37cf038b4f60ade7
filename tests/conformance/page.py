"""`python3 dev.py conformance-page [--level=LEVEL] [STORE ...]`: the kit on every first-party driver, and its page.

Two stores at a time, each by `protojobs conformance` as anyone would run it. With names of stores, or with a level,
only those run, and the page is not written. Fails if a store fails, or cannot be had.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conformance.stores import NOT_RUN, ROOT, STORES, Store  # after the path

PAGE = ROOT / "docs/reference/conformance.md"
TEMPLATE = Path(__file__).with_name("page.md")
AT_ONCE = 2
LIMIT_S = 900.0
WORDS = {"passed": "", "failed": "FAILED", "not_claimed": "not claimed", "not_run": "not run"}


@dataclass(frozen=True)
class Run:
    """What became of one store: its report, or why there is none."""

    store: Store
    version: str = ""
    report: Mapping[str, Any] | None = None
    trouble: str = ""

    @property
    def ok(self) -> bool:
        return self.report is not None and bool(self.report["ok"])


def try_out(store: Store, level: str) -> Run:
    try:
        with store.open() as (url, version), tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "report.json")
            command = [sys.executable, "-m", "protojobs.cli", "conformance", url, "--yes", "--json", str(file)]
            command += ["--level", level]
            ran = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, cwd=folder)
            run = Run(store, version, json.loads(file.read_text())) if file.exists() else None
            trouble = (ran.stderr + ran.stdout)[-3000:]
            run = run or Run(store, version, trouble=trouble)
    except Exception as error:  # no server, no driver: told in the table, and the command fails
        run = Run(store, trouble=f"{type(error).__name__}: {error}")
    say(run)
    return run


def say(run: Run) -> None:
    if run.report is None:
        print(f"{run.store.name:15} NO REPORT\n{run.trouble}", flush=True)
        return
    report = run.report
    levels = ", ".join(f"{level['name']} {told(level)}" for level in report["levels"])
    print(f"{run.store.name:15} {run.version:24} {report['seconds']:6.1f} s  reached {report['reached']}: {levels}")
    for test in report["tests"]:
        if test["outcome"] == "failed":
            print(f"  FAILED {test['id']}\n    " + test["detail"].replace("\n", "\n    "), flush=True)


def told(counts: Mapping[str, Any]) -> str:
    """A cell: how many passed, or in a word why none did."""
    if counts["outcome"] == "not_claimed":
        return "not claimed"
    words = [str(counts["passed"])]
    words += [f"{counts[name]} {WORDS[name]}" for name in ("failed", "not_run") if counts[name]]
    return ", ".join(words)


# ------------------------------------------------------------------------------------------------ the page


def page(runs: Sequence[Run]) -> str:
    """The whole page."""
    done = [run for run in runs if run.report is not None]
    model = next(run.report for run in done if run.report and run.store.name == "memory")
    queue_level = next(level for level in model["levels"] if level["name"] == "queue")
    pieces = {
        "@PYTHON@": platform.python_version(),
        "@MATRIX@": "\n".join(matrix(done)),
        "@VERSIONS@": "\n".join(versions(runs)),
        "@QUEUE_TESTS@": str(queue_level["passed"]),
        "@VERSION@": str(model["subject"]["distribution"]).rpartition(" ")[2],
    }
    text = TEMPLATE.read_text(encoding="utf-8")
    for mark, piece in pieces.items():
        text = text.replace(mark, piece)
    return text


def matrix(runs: Sequence[Run]) -> list[str]:
    lines = ["| concern | " + " | ".join(run.store.name for run in runs) + " |", "|---" * (len(runs) + 1) + "|"]
    for place in ("concerns", "levels"):
        tables = [{counts["name"]: counts for counts in run.report[place]} for run in runs if run.report]
        names = dict.fromkeys(name for table in tables for name in table)
        for name in names:
            cells = [told(table[name]) if name in table else "" for table in tables]
            label = f"**level {name}**" if place == "levels" else name
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
    reached = [f"**{run.report['reached'] or 'none'}**" for run in runs if run.report]
    lines.append("| **reached** | " + " | ".join(reached) + " |")
    seconds = [f"{run.report['seconds']:.0f}" for run in runs if run.report]
    return [*lines, "| seconds, two stores at a time | " + " | ".join(seconds) + " |"]


def versions(runs: Sequence[Run]) -> list[str]:
    lines = ["| store | version | driver | result |", "|---|---|---|---|"]
    for run in runs:
        driver = run.report["subject"]["distribution"] if run.report else run.store.driver
        result = f"reached {run.report['reached'] or 'no level'}" if run.report else "*not run here*"
        lines.append(f"| {run.store.name} | {run.version or '?'} | {driver} | {result} |")
    lines += [f"| {name} | | {driver} | *not run* |" for name, driver, _ in NOT_RUN]
    return lines


def weight(store: Store) -> int:
    """About how many seconds a store takes."""
    return {"MariaDB": 60, "PostgreSQL": 50, "SQLite": 30, "memory": 5}.get(store.name, 20)


def main(words: Sequence[str]) -> int:
    started = time.monotonic()
    level = next((word.removeprefix("--level=") for word in words if word.startswith("--level=")), "faults")
    names = [word for word in words if not word.startswith("--")]
    chosen = [store for store in STORES if not names or store.name.lower() in [name.lower() for name in names]]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        # The slowest first, so that it does not run on alone at the end.
        begun = {store.name: pool.submit(try_out, store, level) for store in sorted(chosen, key=weight, reverse=True)}
        runs = [begun[store.name].result() for store in chosen]
    if not words:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page(runs))
        print(f"wrote {PAGE.relative_to(ROOT)}")
    bad = [run.store.name for run in runs if not run.ok]
    print(f"conformance: {', '.join(bad) + ' FAILED' if bad else 'all passed'} ({time.monotonic() - started:.0f} s)")
    return 1 if bad or not runs else 0


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main(sys.argv[1:]))
