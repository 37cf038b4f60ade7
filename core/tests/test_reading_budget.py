"""How much a newcomer must open to follow one job from push to settle. The numbers are a promise to readers."""

from __future__ import annotations

from pathlib import Path

import protojobs
import protojobs_memory

CORE, MEMORY = Path(protojobs.__file__).parent, Path(protojobs_memory.__file__).parent

# In the order in which the job meets them. What they import beside (errors, names, records, clocks) is vocabulary.
THE_WALK = [
    CORE / "queue.py",  # push: data -> NewJob -> driver.enqueue
    CORE / "codec.py",  # data <-> text
    MEMORY / "driver.py",  # enqueue, claim, settle
    CORE / "worker.py",  # the claim loop
    CORE / "_decisions.py",  # what to do when
    CORE / "_execution.py",  # one run, and what its end means
    CORE / "_executors" / "threads.py",  # where it runs
    CORE / "outcomes.py",  # what it decided
]


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_one_jobs_path_is_at_most_eight_files() -> None:
    assert all(path.is_file() for path in THE_WALK)
    assert len(THE_WALK) <= 8


def test_no_module_of_core_is_longer_than_400_lines() -> None:
    long = {path.name: lines(path) for path in CORE.rglob("*.py") if lines(path) > 400}
    assert long == {}


def test_every_module_opens_with_what_it_is_for() -> None:
    silent = [path.name for path in CORE.rglob("*.py") if not path.read_text().startswith('"""')]
    assert silent == []
