"""`python3 dev.py mutants [WORDS]`: every mutant against the conformance kit, as many at once as there are cores.

Prints who caught which, and fails if one survives, if one no longer applies, or if a driver without any fault does not
pass: then nothing would have been shown. With WORDS only the mutants whose names contain them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from mutants.plant import Outgrown, mutated  # noqa: E402  after the path
from mutants.planted import MUTANTS  # noqa: E402

LIMIT_S = 240.0  # a driver without a fault runs all of its tests, on a machine that may be busy
NO_FAULT = ""


@dataclass(frozen=True)
class Verdict:
    """What became of one mutant: `caught_by` a test's id, or `error`, or neither, and then it survived."""

    name: str
    seconds: float
    ran: int = 0
    caught_by: str = ""
    error: str = ""


def try_out(store: str, name: str) -> Verdict:
    started = time.monotonic()
    command = [sys.executable, str(HERE / "one.py"), store, name]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return Verdict(name, time.monotonic() - started, error=f"no answer within {LIMIT_S:g} s")
    seconds = time.monotonic() - started
    try:
        told = json.loads(ran.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return Verdict(name, seconds, error=(ran.stderr or ran.stdout)[-2000:] or f"exit code {ran.returncode}")
    return Verdict(name, seconds, told["ran"], told["caught_by"], told["broken"])


def main(words: list[str]) -> int:
    started = time.monotonic()
    chosen = [mutant for mutant in MUTANTS if all(word in mutant.name for word in words)]
    if not chosen:
        print("mutants: there is none of that name", file=sys.stderr)
        return 1
    for mutant in chosen:
        try:
            mutated(mutant)
        except (Outgrown, SyntaxError) as error:
            print(f"mutants: {error}\nMend the mutant in {HERE}/planted*.py.", file=sys.stderr)
            return 1
    stores = dict.fromkeys(mutant.store for mutant in chosen)
    runs = [*((store, NO_FAULT) for store in stores), *((mutant.store, mutant.name) for mutant in chosen)]
    width = max((len(name) for _, name in runs), default=0)
    bad: list[Verdict] = []
    with ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        for (store, name), verdict in zip(runs, pool.map(try_out, *zip(*runs, strict=True)), strict=True):
            print(line(store, verdict, width), flush=True)
            if verdict.error or bool(verdict.caught_by) is (name == NO_FAULT):
                bad.append(verdict)
    for verdict in bad:
        if verdict.error:
            print(f"\n{verdict.name or '(no fault)'}: {verdict.error}", file=sys.stderr)
    seconds = time.monotonic() - started
    if bad:
        print(f"mutants: {len(bad)} of {len(runs)} runs went wrong, see above ({seconds:.0f} s)", file=sys.stderr)
        return 1
    print(f"mutants: all {len(chosen)} were caught, and the drivers without a fault passed ({seconds:.0f} s)")
    return 0


def line(store: str, verdict: Verdict, width: int) -> str:
    if verdict.error:
        outcome = "ERROR"
    elif verdict.name == NO_FAULT:
        outcome = f"FAILED  {verdict.caught_by}" if verdict.caught_by else f"passed  all {verdict.ran} tests"
    else:
        outcome = f"caught  {verdict.caught_by}" if verdict.caught_by else f"SURVIVED all {verdict.ran} tests"
    return f"{verdict.name or f'(no fault, {store})':{width}}  {verdict.seconds:5.1f} s  {outcome}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
