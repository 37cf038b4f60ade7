"""How much a newcomer must read to follow one job from push to settle: measured, by watching a job go its way.

On SQLite, by a worker that is warm: it has run jobs before, and waits for the next. The limits fall. Once they rose, by
6 functions and 72 lines, for the turn in the listening thread and the second round trip (decision 0034), async jobs
that lie ready, and what many pushes have in common. One line more, and 16 of these files, are for the resources of a
worker; 1 function and 17 lines, since each claim asks for its order of queues; 10 of these files tell runs of a stop;
a file, a function and 13 lines, and 43 of these files, are for the names of a store (its schema, its prefix). Two lines
are for datetimes without a zone and for Pydantic's models, one tells a run its `max_retries`. Two
files, two functions and 15 lines, and 104 lines of whole files, are for results and what comes next: new_jobs.py makes
jobs for a push and for `then`, and completions that carry something are told from plain ones in one place.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import protojobs
import protojobs_sqlalchemy

CORE, SQL = Path(protojobs.__file__).parent, Path(protojobs_sqlalchemy.__file__).parent

# In the order in which the job meets them. What they use beside (errors, names, records, clocks) is vocabulary.
THE_WALK = (
    CORE / "new_jobs.py",  # data -> NewJob
    CORE / "queue" / "pushing.py",  # push: NewJob -> driver.enqueue
    CORE / "jobs" / "job_class.py",  # what a job is
    SQL / "driver.py",  # the port's verbs, by name
    SQL / "sqlite" / "jobs.py",  # enqueue, claim and settle in SQL
    CORE / "worker" / "loop.py",  # the claim loop
    CORE / "worker" / "planner.py",  # what to do when
    CORE / "worker" / "runs" / "starting.py",  # from a claimed job to a run at work
    CORE / "worker" / "runs" / "threads.py",  # where it runs
    CORE / "worker" / "runs" / "run.py",  # one run, and what its end means
)
WALK_LINES_MAX = 3_247  # counted whole; 28 of them the types of `@job`
FILES_MAX = 41
FUNCTIONS_MAX = 170  # a comprehension or a lambda is part of the function that it stands in
LINES_MAX = 1_340  # of these functions, without blank lines, comments and docstrings

WATCHED = """
import json, sys, tempfile, threading, time
from protojobs import JobQueue, StopToken, create_driver, job

@job(name="add")
def add(a: int, b: int) -> int:
    return a + b

entered, is_watching = set(), False

def watch(frame, event, argument):
    if is_watching and event == "call" and "/src/protojobs" in frame.f_code.co_filename:
        entered.add(frame.f_code)

def completed(job_id):
    return driver.get([job_id])[0].status.value == "completed"

def until(condition):
    ends = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)

with tempfile.TemporaryDirectory() as folder:
    driver = create_driver(f"sqlite:///{folder}/jobs.db")
    driver.setup()
    queue, stop = JobQueue(driver, {"concurrency": 1, "observe": False}), StopToken()
    threading.setprofile(watch)
    sys.setprofile(watch)
    worker = threading.Thread(target=lambda: queue.work(stop=stop))
    worker.start()
    for _ in range(3):  # what is made on first use is made
        job_id = queue.push(add.bind(1, 2))
        until(lambda: completed(job_id))
    is_watching = True
    job_id = queue.push(add.bind(1, 2))
    time.sleep(0.5)  # nothing of ours may run here that is no part of the walk, so nobody asks the store
    is_watching = False
    until(lambda: completed(job_id))
    stop.stop()
    worker.join()
    queue.close()

def function(code):
    return code.co_filename, code.co_qualname.replace(".<locals>", "").split(".<")[0]

lines = {(code.co_filename, line) for code in entered for *_, line in code.co_lines() if line}
print(json.dumps([len({file for file, _ in lines}), len({function(code) for code in entered}), len(lines)]))
"""


def entered_by_one_job() -> tuple[int, int, int]:
    """Files, functions and lines that one job enters, from push to settle."""
    watched = subprocess.run([sys.executable, "-c", WATCHED], capture_output=True, text=True, timeout=90, check=False)
    assert watched.returncode == 0, watched.stderr
    files, functions, lines = json.loads(watched.stdout)
    return files, functions, lines


def test_the_way_of_a_job_is_short() -> None:
    files, functions, lines = entered_by_one_job()
    assert files <= FILES_MAX, (files, functions, lines)
    assert functions <= FUNCTIONS_MAX, (files, functions, lines)
    assert lines <= LINES_MAX, (files, functions, lines)


def test_the_files_of_the_walk_are_few_and_short() -> None:
    assert len(THE_WALK) <= 10
    lengths = {path.name: len(path.read_text().splitlines()) for path in THE_WALK}
    assert sum(lengths.values()) <= WALK_LINES_MAX, lengths


def test_every_module_opens_with_what_it_is_for() -> None:
    silent = [path.name for path in CORE.rglob("*.py") if not path.read_text().startswith('"""')]
    assert silent == []
