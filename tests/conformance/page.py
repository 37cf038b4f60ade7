"""`python3 dev.py conformance-page [STORE ...]`: the kit on every first-party driver, and the page about it.

Two stores at a time, each by `protojobs conformance` as anyone would run it. With names of stores only those run, and
the page is not written. Fails if a store fails, or cannot be had.
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

from conformance.stores import NOT_RUN, ROOT, STORES, Store  # noqa: E402  after the path

PAGE = ROOT / "docs/reference/conformance.md"
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


def try_out(store: Store) -> Run:
    try:
        with store.open() as (url, version), tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "report.json")
            command = [sys.executable, "-m", "protojobs.cli", "conformance", url, "--yes", "--json", str(file)]
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
    return "\n".join([HEAD, *matrix(done), "", *versions(runs), "", TAIL])


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


HEAD = f"""# Conformance

<!-- Made by `python3 dev.py conformance-page`. Do not edit: the text is in tests/conformance/page.py. -->

Every driver is held to one suite of tests, the conformance kit, which asks only through the public port. The numbers
are tests that passed, on real servers, with Python {platform.python_version()}. A driver *claims* its abilities
(`driver.capabilities`); what is claimed and does not work fails, what works and is not claimed fails too, and what is
neither stands here as *not claimed*.
"""

TAIL = """*not run* means just that: nobody has run the kit there, so nothing is promised. Where you have such a server, run it:

```console
$ pip install "protojobs[testing,postgresql]"
$ protojobs conformance postgresql://localhost/scratch --json report.json
```

The tests **delete everything** in that store. One that is not empty is refused, unless you say yes (`--yes`).

## Levels

| level | what is asked |
|---|---|
| `queue` | the whole port in one process: order, delays, fences, leases, every state with every verb, races, counts, pages, names, transfer, and a random walk beside the memory driver |
| `transactions` | jobs that commit or vanish with the caller's own rows, savepoints, `complete_in` |
| `faults` | processes killed with `kill -9` while they push, work and set up, frozen past their lease, connections cut under load |

A level is reached when all its tests pass and those of the levels below it; a level that the driver does not claim is
passed over. `--level queue` stops at that level. Exit code 0: everything that is claimed passed; 1: not so.

## Your own driver

Install it with its entry point in `protojobs.drivers`, and the command above does the rest. For a test file of your own:

<!-- no-run: it needs your driver -->
```python
import functools
import pytest
from my_driver import MyDriver
from protojobs.testing.conformance import DriverConformance

class TestMyDriver(DriverConformance):
    @pytest.fixture
    def driver_factory(self):
        return functools.partial(MyDriver, "my://localhost/test")
```

| fixture | needed | what it gives |
|---|---|---|
| `driver_factory` | yes | a callable that makes one more driver on the same store, and takes `time_offset=` |
| `reset` | no | a callable that leaves the store set up and empty, before each test; by default the port's own verbs |
| `disturb` | no | a callable that cuts every connection; by default the drivers are closed while others use them |
| `transaction` | for `transactions` | a callable that answers a context manager, which yields what `enqueue_in` takes; by default the driver's own `begin` |
| `savepoint` | no | from such a transaction to a context manager; by default its `begin_nested` |
| `store_url` | for `faults` | the URL by which another process finds the same store |

A test that your store cannot pass is overridden with a reason, `@pytest.mark.xfail(reason="...")`; one that is replaced
or deleted without a word makes another test fail. `aenqueue_in` is only checked to be there when it is claimed.

## The report as JSON

`--json FILE` (`-` for stdout) writes one document. Fields are added to it, never taken away.

| field | |
|---|---|
| `schema` | `protojobs/conformance@1` |
| `subject` | `driver` (class), `distribution`, `store` (the URL without its password), `capabilities`, `port_version`, `protojobs`, `python`, `system` |
| `asked`, `reached` | levels; `reached` is null when not even `queue` was |
| `ok` | the run was whole, and all that is claimed passed |
| `seconds` | the whole run |
| `levels`, `concerns` | lists of `name`, `level`, `outcome`, `passed`, `failed`, `not_claimed`, `not_run`, `seconds` |
| `tests` | a list of `id`, `concern`, `level`, `outcome`, `sentence`, `seconds`, `detail` |

`outcome` is `passed`, `failed`, `not_claimed` or `not_run` (it is claimed, but could not be tried on that machine). A
test's `id`, such as `fencing.a_missing_job_is_stale_and_has_no_state[retry]`, stays the same when files and classes
move; renaming one is a change to this contract.

## Who tests the tests

`python3 dev.py mutants` plants faults in the memory driver, one at a time (a term of the fence dropped, order lost, a
lease revived, a row counted twice, ...), and fails unless the kit catches each of them. CI runs it.
"""


def main(names: Sequence[str]) -> int:
    started = time.monotonic()
    chosen = [store for store in STORES if not names or store.name.lower() in [name.lower() for name in names]]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        runs = list(pool.map(try_out, chosen))
    if not names:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page(runs))
        print(f"wrote {PAGE.relative_to(ROOT)}")
    bad = [run.store.name for run in runs if not run.ok]
    print(f"conformance: {', '.join(bad) + ' FAILED' if bad else 'all passed'} ({time.monotonic() - started:.0f} s)")
    return 1 if bad or not runs else 0


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main(sys.argv[1:]))
