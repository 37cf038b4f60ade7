"""`python3 dev.py scale`: what a turn touches in the store, with a thousand jobs in it and with a million. It is flat.

    python3 dev.py scale                                    what CI runs
    python3 dev.py scale --jobs 10000000 --stores sqlite    deeper, by hand: minutes, and 10 GB of disk
    python3 dev.py scale --stores postgresql --shapes delayed,retention
    python3 dev.py scale --json out.json                    all counts, by table and index
    python3 dev.py scale --dashboard                        the dashboard's pages instead: statements, scans, times

But for the dashboard no time is judged, so a busy machine changes nothing. README.md says what is counted, and where
the bounds come from.
The exit code is 1 when a count is above its bound.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import bounds
import held
import retention
import shapes
import stores
import workers
from bounds import Finding
from options import positive, some_of

if TYPE_CHECKING:
    from dashboard_pages import PageFinding

# In Valkey a million take 550 MB of memory; MariaDB's are pushed, as the database copies none.
ROWS = {"sqlite": 1_000_000, "postgresql": 1_000_000, "mariadb": 100_000, "valkey": 100_000}
ROWS_MAX = {"valkey": 1_000_000}
RETENTION, HELD, WORKERS = "retention", "held", "workers"
KINDS = {RETENTION: ("sqlite", "postgresql"), HELD: ("postgresql",), WORKERS: ("postgresql", "mariadb", "valkey")}
STORES = ("sqlite", "postgresql", "valkey")  # of the other shapes, and when none is named


def main(words: list[str]) -> int:
    """Measure what was asked for; 1 if anything is above its bound."""
    options = _options(words)
    began = time.monotonic()
    found: list[Finding | PageFinding] = []
    with tempfile.TemporaryDirectory(prefix="protojobs-scale-", dir=options.folder) as folder:
        with stores.running(options.stores, is_durable=False) as urls:
            if options.dashboard:
                found += _pages(options, urls, Path(folder))
            for one in () if options.dashboard else _measured(options, urls, Path(folder)):
                print(bounds.table(one), flush=True)
                found += one
    broken = [line for one in found if (line := one.complaint)]
    print("\n".join(["", *broken]) if broken else "\nscale: nothing is above its bound")
    if options.json:
        about = {"seconds": round(time.monotonic() - began, 1), "broken": broken}
        options.json.write_text(json.dumps(about | {"findings": [asdict(one) for one in found]}, indent=1) + "\n")
    return 1 if broken else 0


def _measured(options: argparse.Namespace, urls: dict[str, str], folder: Path) -> Iterator[list[Finding]]:
    for store in options.stores:
        rows = min(options.jobs or ROWS[store], ROWS_MAX.get(store, sys.maxsize))
        for name in (name for name in options.shapes if store in KINDS.get(name, STORES)):
            began = time.monotonic()
            place = Path(tempfile.mkdtemp(prefix=f"{store}-{name}-", dir=folder))
            server = urls.get(store, "")
            if name == RETENTION:
                found = list(retention.measured(store, server, place, options.finished, options.pairs))
            elif name == HELD:
                found = list(held.measured(store, server, place))
            elif name == WORKERS:
                found = list(workers.measured(store, server, place, rows))
            else:
                small, large = (shapes.measured(name, store, server, place, depth) for depth in (shapes.SMALL, rows))
                found = list(bounds.compared(store, name, (shapes.SMALL, rows), (small, large)))
            _say(f"{store:10}  {name:10}  measured in {time.monotonic() - began:.0f} s")
            yield found


def _pages(options: argparse.Namespace, urls: dict[str, str], folder: Path) -> list[PageFinding]:
    import dashboard_pages as pages  # the dashboard, which the others do without

    found: list[PageFinding] = []
    for store in (name for name in options.stores if name in pages.STORES):
        began = time.monotonic()
        found += (one := list(pages.measured(store, urls.get(store, ""), folder, options.jobs or ROWS[store])))
        _say(f"{store:10}  dashboard   measured in {time.monotonic() - began:.0f} s")
        print(pages.table(one), flush=True)
    return found


def _options(words: list[str]) -> argparse.Namespace:
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="dev.py scale", description=__doc__, formatter_class=text)
    names = [*shapes.SHAPES, RETENTION, HELD, WORKERS]
    parser.add_argument("--jobs", type=positive, help="the large depth, in place of each store's own")
    parser.add_argument("--finished", type=positive, default=300_000, help="finished jobs that retention prunes among")
    parser.add_argument("--pairs", type=positive, default=2, help="windows of its worker, each with and without")
    parser.add_argument("--stores", type=some_of(ROWS), default=list(STORES), metavar="A,B")
    parser.add_argument("--shapes", type=some_of(names), default=names, metavar="A,B", help=", ".join(names))
    parser.add_argument("--dashboard", action="store_true", help="measure the dashboard's pages")
    parser.add_argument("--folder", type=Path, help="where SQLite's files lie")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(words)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
