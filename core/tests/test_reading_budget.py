"""How much a newcomer must read to follow one job from push to settle: measured, by watching a job go its way."""

from __future__ import annotations

import sys
import threading
from collections import defaultdict
from pathlib import Path
from types import CodeType, FrameType

import protojobs
import protojobs_memory
from protojobs import JobQueue, job

CORE, MEMORY = Path(protojobs.__file__).parent, Path(protojobs_memory.__file__).parent

# In the order in which the job meets them. What they use beside (errors, names, records, clocks) is vocabulary.
THE_WALK = (
    CORE / "queue.py",  # push: data -> NewJob -> driver.enqueue
    CORE / "jobs.py",  # what a job is, and how its code is called
    CORE / "codec.py",  # data <-> text
    MEMORY / "driver.py",  # enqueue, claim, settle
    CORE / "worker.py",  # the claim loop
    CORE / "_decisions.py",  # what to do when
    CORE / "_execution.py",  # one run, and what its end means
    CORE / "_executors" / "threads.py",  # where it runs
)
LINES_MAX = 1_300  # "about 1,200": of the functions that a job enters, without blank lines, comments and docstrings


def entered_by_one_job(queue: JobQueue) -> dict[Path, set[CodeType]]:
    @job(name="add")
    def add(a: int, b: int) -> int:
        return a + b

    def one_job() -> None:
        queue.push(add.bind(1, 2))
        assert queue.work("default", 1).done == 1

    entered: dict[Path, set[CodeType]] = defaultdict(set)

    def watch(frame: FrameType, event: str, argument: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and (CORE in path.parents or MEMORY in path.parents):
            entered[path].add(frame.f_code)

    one_job()  # what is made on first use is made
    before = sys.getprofile()
    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        one_job()
    finally:
        sys.setprofile(before)
        threading.setprofile(before)
    return entered


def lines(codes: set[CodeType]) -> int:
    return len({(code.co_firstlineno, line) for code in codes for *_, line in code.co_lines() if line})


def test_the_code_that_a_job_passes_through_is_short_and_most_of_it_is_in_eight_files(queue: JobQueue) -> None:
    found = {path: lines(codes) for path, codes in entered_by_one_job(queue).items()}
    assert found.keys() >= set(THE_WALK)
    assert len(THE_WALK) <= 8
    total, walked = sum(found.values()), sum(found[path] for path in THE_WALK)
    assert total <= LINES_MAX, f"{total} lines: {found}"
    assert walked / total > 0.6, f"{walked} of {total} lines: {found}"


def test_no_module_of_core_is_longer_than_400_lines() -> None:
    found = {path.name: len(path.read_text().splitlines()) for path in CORE.rglob("*.py")}
    assert {name: length for name, length in found.items() if length > 400} == {}


def test_every_module_opens_with_what_it_is_for() -> None:
    silent = [path.name for path in CORE.rglob("*.py") if not path.read_text().startswith('"""')]
    assert silent == []
