"""`python3 dev.py bench`: protojobs on each store, beside the raw limit of the same guarantee. The ratio is the result.

    python3 dev.py bench                                          everything, five rounds
    python3 dev.py bench --stores sqlite,memory --rounds 3        some stores
    python3 dev.py bench --workloads drain1,memory --jobs 50000   some workloads, with so many jobs
    python3 dev.py bench --workloads depth,opentx --rounds 3      two that take minutes, and are run when they are named
    python3 dev.py bench --json out.json --svg out.svg            for a file and for a page

Each measurement has an empty store of its own. Within a round protojobs and the limits follow each other, in the other
order in every second round, so that a busy minute of the machine hits both. README.md says what the numbers mean.
The exit code is 1 when a measurement failed, or a job was lost or ran twice.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import plot
import report
import stores
from options import positive, some_of, two
from processes import Failed, Scene
from report import Measurement
from subjects import OURS, limits_of
from workloads import MEASURES, WORKLOADS, measured_by

# A drain of these takes seconds, not minutes, on a small machine.
JOBS = {"memory": 100_000, "sqlite": 40_000, "postgresql": 20_000, "mariadb": 10_000, "valkey": 40_000}


def main(words: list[str]) -> int:
    """Measure what was asked for; 1 if anything went wrong."""
    options = _options(words)
    load = os.getloadavg()
    began = datetime.now(UTC)
    with tempfile.TemporaryDirectory(prefix="protojobs-bench-", dir=options.folder) as folder:
        with stores.running(options.stores, is_durable=not options.no_fsync) as urls:
            measured = list(_measurements(options, urls, Path(folder)))
    ratios, faults = report.ratios(measured), report.faults(measured)
    print(report.table(ratios))
    print("\n".join(["", *faults]) if faults else "\nno job was lost, and none ran twice")
    about = _about(options, load, began)
    if options.json:
        options.json.write_text(json.dumps(report.document(measured, ratios, about=about), indent=1) + "\n")
    if options.svg:
        options.svg.write_text(plot.svg(ratios, _caption(about)))
    return 1 if faults else 0


def _measurements(options: argparse.Namespace, urls: dict[str, str], folder: Path) -> Iterator[Measurement]:
    plan = [(store, workload) for store in options.stores for workload in _plan(store, options.workloads)]
    for round_ in range(1, options.rounds + 1):
        for store, workload in plan:
            asked = [name for name in options.workloads if measured_by(name) == workload]
            subjects = [OURS, *{limit.name: None for name in asked for limit in limits_of(store, name)}]
            for subject in subjects if round_ % 2 else reversed(subjects):
                scene_folder = Path(tempfile.mkdtemp(prefix=f"{store}-{workload}-", dir=folder))
                with stores.empty(store, urls.get(store, ""), scene_folder) as url:
                    scene = Scene(
                        subject,
                        store,
                        url,
                        scene_folder,
                        options.concurrency,
                        options.limit,
                        server=urls.get(store, ""),
                        depths=options.depths,
                        hold_s=options.hold,
                        is_reversed=not round_ % 2,
                    )
                    yield from _measured(scene, round_, workload, asked, options)


def _measured(
    scene: Scene, round_: int, workload: str, asked: Sequence[str], options: argparse.Namespace
) -> Iterator[Measurement]:
    began, head = time.monotonic(), (round_, scene.kind)
    try:
        values = MEASURES[workload](scene, options.jobs or JOBS[scene.kind], options.seconds)
    except Failed as error:
        _say(f"round {round_}  {scene.kind:10}  {workload:8}  {scene.subject:10}  FAILED: {report.brief(str(error))}")
        yield Measurement(*head, workload, scene.subject, 0.0, {}, str(error))
        return
    taken = time.monotonic() - began
    for name in asked:
        if scene.subject != OURS and scene.subject not in [limit.name for limit in limits_of(scene.kind, name)]:
            continue
        details = dict(values[name])
        value, unit = details.pop("value"), WORKLOADS[name].unit
        yield Measurement(*head, name, scene.subject, value, details)
        _say(f"round {round_}  {scene.kind:10}  {name:8}  {scene.subject:10}  {value:12,.2f} {unit:6}  ({taken:.1f} s)")


def _plan(store: str, asked: Sequence[str]) -> list[str]:
    """What is run for what was asked."""
    return list({measured_by(name): None for name in asked if store in (WORKLOADS[name].kinds or (store,))})


def _options(words: list[str]) -> argparse.Namespace:
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="dev.py bench", description=__doc__, formatter_class=text)
    parser.add_argument("--stores", type=some_of(stores.KINDS), default=list(stores.KINDS), metavar="A,B")
    usual = [name for name, workload in WORKLOADS.items() if workload.is_usual]
    parser.add_argument("--workloads", type=some_of(WORKLOADS), default=usual, metavar="A,B", help=", ".join(WORKLOADS))
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--jobs", type=positive, help="in place of each store's own number")
    parser.add_argument("--seconds", type=float, default=2.0, help="the longest a push measurement goes on")
    parser.add_argument("--concurrency", type=positive, default=8, help="of protojobs' worker")
    parser.add_argument("--depths", type=two, default=(1_000, 1_000_000), metavar="A,B", help="backlogs of `depth`")
    parser.add_argument("--hold", type=float, default=20.0, help="seconds that `opentx` holds a transaction open")
    parser.add_argument("--no-fsync", action="store_true", help="servers that do not wait for the disk: what is left")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds after which one measurement has failed")
    parser.add_argument("--folder", type=Path, help="where SQLite's files lie; a real disk, else FULL means nothing")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--svg", type=Path, metavar="FILE")
    return parser.parse_args(words)


def _about(options: argparse.Namespace, load: tuple[float, float, float], began: datetime) -> dict[str, object]:
    return {
        "began_at": began.isoformat(timespec="seconds"),
        "seconds": round((datetime.now(UTC) - began).total_seconds(), 1),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load_before": [round(one, 2) for one in load],
        "load_after": [round(one, 2) for one in os.getloadavg()],
        "is_durable": not options.no_fsync,
        "rounds": options.rounds,
        "jobs": {store: options.jobs or JOBS[store] for store in options.stores},
        "concurrency": options.concurrency,
        "depths": options.depths,
        "hold_s": options.hold,
    }


def _caption(about: dict[str, object]) -> str:
    disk = "each push on disk" if about["is_durable"] else "servers that do not wait for the disk"
    return f"median and range of the rounds ({about['rounds']}); no-op job; {disk}; {about['cores']} cores"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
