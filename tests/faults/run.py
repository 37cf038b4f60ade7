"""`python3 dev.py faults`: real faults on real stores, and the checker's word on what came of them.

    python3 dev.py faults --short                            a seeded mix on each kind of store, and those tests that
                                                             are marked `faults`: what CI runs
    python3 dev.py faults --minutes 30 --seed 7              longer
    python3 dev.py faults --scenario kills --on postgresql   one scenario on one kind of store
    python3 dev.py faults --url redis://host/5 --minutes 10  on a store of yours; its server is left alone
    python3 dev.py soak --minutes 30                         the scenario `soak` on all kinds of store at the same time

Each run gets servers of its own, on which every acknowledged write is on disk; tests/servers.py says where from.
The exit code is 1 when a promise was broken. The journals of such a run are kept.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent))

import servers  # noqa: E402  after the path
from faults import scenarios  # noqa: E402
from faults.stage import KINDS, Report, set_up  # noqa: E402

SHORT_MINUTES = 0.35
TIMED = "tests/faults/test_outages.py"
NAMES = sorted(module.name for module in pkgutil.iter_modules(scenarios.__path__))
SHOWN = 20
TOLD_EVERY_S = 300.0  # of progress, where there is no terminal


def main(words: list[str]) -> int:
    """Run what was asked for; 1 if a promise was broken."""
    options = _options(words)
    kinds = [_kind_of(options.url)] if options.url else options.on.split(",")
    runs = [(name, kind) for name in options.scenario.split(",") for kind in kinds]
    if options.short:
        broken = _in_short(runs, options.seed)
    elif options.at_once:
        broken = _at_once(runs, options)
    else:
        broken = sum(not _one(name, kind, options, options.minutes) for name, kind in runs)
    print("faults: every promise was kept" if not broken else f"faults: {broken} runs BROKE a promise", flush=True)
    return 1 if broken else 0


def _in_short(runs: list[tuple[str, str]], seed: int) -> int:
    """Two at a time, each in a process of its own: most of the time they wait. Answers how many broke something.

    The tests that ask how soon an answer comes run last and alone: beside the others they would time the processor.
    """

    def one(command: list[str]) -> int:
        began = time.monotonic()
        ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
        print(f"{ran.stdout.strip()}\n    ({time.monotonic() - began:.0f} s in all)", flush=True)
        return int(ran.returncode != 0)

    here = [sys.executable, str(HERE / "run.py"), "--minutes", str(SHORT_MINUTES), "--seed", str(seed)]
    commands = [[*here, "--scenario", name, "--on", kind] for name, kind in runs]
    tests = [sys.executable, "-m", "pytest", "-q", "-m", "faults"]
    side_by_side = ["-n", "3", "--dist", "worksteal", "--ignore", TIMED]
    commands.insert(0, [*tests, *side_by_side, "tests/faults", "tests/end_to_end", "drivers"])
    with ThreadPoolExecutor(2) as pool:
        broken = sum(pool.map(one, commands))
    return broken + one([*tests, TIMED])


def _at_once(runs: list[tuple[str, str]], options: argparse.Namespace) -> int:
    """All at the same time, each in a process of its own, told of as it ends. Answers how many broke something."""
    rest = ["--minutes", str(options.minutes), "--seed", str(options.seed), *(["--keep"] if options.keep else [])]
    here = [sys.executable, str(HERE / "run.py"), *rest, *(["--json"] if options.json else [])]

    def one(name: str, kind: str) -> int:
        command = [*here, "--scenario", name, "--on", kind]
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)  # progress goes on to stderr
        print(ran.stdout.strip(), flush=True)
        return int(ran.returncode != 0)

    with ThreadPoolExecutor(len(runs)) as pool:
        return sum(pool.map(lambda each: one(*each), runs))


def _one(name: str, kind: str, options: argparse.Namespace, minutes: float) -> bool:
    scenario = importlib.import_module(f"faults.scenarios.{name}")
    head = f"{name} on {kind}, seed {options.seed}"
    began = time.monotonic()
    say = _progress(head)
    folder = None
    try:
        with set_up(kind, url=options.url, seed=options.seed, minutes=minutes, say=say) as stage:
            folder = stage.folder
            report = scenario.run(stage)
            stage.is_kept = bool(report.complaints) or options.keep
    except servers.Unavailable as error:
        report = Report([f"not run: {error}"])
    except Exception:  # the other runs go on
        report = Report([traceback.format_exc()])
    say("")
    took_s = time.monotonic() - began
    verdict = "BROKEN" if report.complaints else "kept"
    print(f"{head}: {verdict}, {took_s:.0f} s", flush=True)
    if options.json:
        print(
            json.dumps(
                {"scenario": name, "store": kind, "seed": options.seed, "seconds": round(took_s, 1)}
                | {"complaints": report.complaints, "figures": report.figures}
            ),
            flush=True,
        )
    else:
        for figure, value in report.figures.items():
            print(f"    {figure:28} {value:>10,}" if isinstance(value, int) else f"    {figure:28} {value:>10}")
    for complaint in report.complaints[:SHOWN]:
        print(f"  ! {complaint}")
    if len(report.complaints) > SHOWN:
        print(f"  ! and {len(report.complaints) - SHOWN:,} more")
    if (report.complaints or options.keep) and folder is not None:
        print(f"  journals and logs: {folder}", flush=True)
    return not report.complaints


def _progress(head: str):  # type: ignore[no-untyped-def]
    """What a scenario says while it runs: on a terminal one line that changes, else a line every five minutes."""
    said_at = time.monotonic()

    def say(text: str) -> None:
        nonlocal said_at
        if sys.stderr.isatty():
            print(f"\r\x1b[K{head}: {text}" if text else "\r\x1b[K", end="", file=sys.stderr, flush=True)
        elif text and time.monotonic() - said_at >= TOLD_EVERY_S:
            said_at = time.monotonic()
            print(f"{head}: {text}", file=sys.stderr, flush=True)

    return say


def _kind_of(url: str) -> str:
    scheme = urlsplit(url).scheme.partition("+")[0]
    alike = {"redis": "valkey", "rediss": "valkey", "mysql": "mariadb"}
    return alike.get(scheme, scheme if scheme in KINDS else "other")


def _options(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dev.py faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--short", action="store_true", help="half a minute of faults on each store, and the tests marked `faults`"
    )
    parser.add_argument("--minutes", type=float, default=0.0, help="how long faults go on; 0: as the scenario says")
    parser.add_argument("--seed", type=int, default=1, help="of the dice (default 1); who is struck, how, and when")
    parser.add_argument("--on", default=",".join(KINDS), help=f"kinds of store (default {','.join(KINDS)})")
    parser.add_argument("--url", help="a store of yours, empty; its server is neither killed nor frozen")
    parser.add_argument("--scenario", default="mix", help=f"some of: {', '.join(NAMES)} (default mix)")
    parser.add_argument("--keep", action="store_true", help="keep the journals also when nothing was broken")
    parser.add_argument("--at-once", action="store_true", help="all these runs at the same time")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each run")
    options = parser.parse_args(words)
    for name in options.scenario.split(","):
        if name not in NAMES:
            parser.error(f"there is no scenario {name!r}; there are {', '.join(NAMES)}")
    for kind in options.on.split(","):
        if kind not in KINDS:
            parser.error(f"there is no store {kind!r}; there are {', '.join(KINDS)}")
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
