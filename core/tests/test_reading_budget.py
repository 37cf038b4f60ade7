"""How much a newcomer must read to follow one job from push to settle: measured, by watching a job go its way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import protojobs
import protojobs_memory

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
# "about 1,200", and what outages, leases in doubt, short jobs that lie ready, signs of life and distant stores have
# added: of the functions that a job enters, without blank lines, comments and docstrings. The notes for charts are off:
# they lie beside the way, and whether any are sent in the moment that is watched is chance.
LINES_MAX = 1_700


WATCHED = """
import json, sys, threading
from protojobs import JobQueue, job
from protojobs_memory import MemoryDriver

@job(name="add")
def add(a: int, b: int) -> int:
    return a + b

queue, entered = JobQueue(MemoryDriver(), {"concurrency": 1, "observe": False}), set()

def one_job():
    queue.push(add.bind(1, 2))
    assert queue.work("default", 1).done == 1

def watch(frame, event, argument):
    if event == "call" and "protojobs" in frame.f_code.co_filename:
        entered.add(frame.f_code)

one_job()  # what is made on first use is made
threading.setprofile(watch)
sys.setprofile(watch)
one_job()
sys.setprofile(None)
lines = {(code.co_filename, line) for code in list(entered) for *_, line in code.co_lines() if line}
files = [file for file, _ in lines]
print(json.dumps({file: files.count(file) for file in set(files)}))
"""


def entered_by_one_job() -> dict[Path, int]:
    """For each file the number of lines in the functions that one job enters, from push to settle."""
    watched = subprocess.run(
        [sys.executable, "-c", WATCHED], capture_output=True, text=True, timeout=30, check=True, cwd=CORE.parent
    )
    found: dict[str, int] = json.loads(watched.stdout)
    return {Path(name): count for name, count in found.items()}


def test_the_code_that_a_job_passes_through_is_short_and_most_of_it_is_in_eight_files() -> None:
    found = entered_by_one_job()
    assert found.keys() >= set(THE_WALK)
    assert len(THE_WALK) <= 8
    total, walked = sum(found.values()), sum(found[path] for path in THE_WALK)
    assert total <= LINES_MAX, f"{total} lines: {found}"
    assert walked / total > 0.55, f"{walked} of {total} lines: {found}"


def test_no_module_of_core_is_longer_than_600_lines() -> None:
    found = {str(path.relative_to(CORE)): len(path.read_text().splitlines()) for path in CORE.rglob("*.py")}
    assert {name: length for name, length in found.items() if length > 600} == {}


def test_every_module_opens_with_what_it_is_for() -> None:
    silent = [path.name for path in CORE.rglob("*.py") if not path.read_text().startswith('"""')]
    assert silent == []
