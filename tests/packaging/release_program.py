"""What test_across_releases.py runs in the environments of two releases: python release_program.py URL VERB[:WORDS]...

It uses only what both releases document, and prints a JSON list with the answer of each verb.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from protojobs import JobContext, JobQueue, Scheduler, create_driver, job
from protojobs.errors import SchemaOutdated


@job(name="release.note", queue="released")
def note(by: str) -> None:
    print(f"ran {by}", file=sys.stderr)


@job(name="release.break", queue="released", max_retries=0)
def break_(by: str) -> None:
    raise RuntimeError(f"{by} on purpose")


def ask_for_one(context: JobContext) -> str:
    context.then(note.bind("next"))
    return "kept"


def push(queue: JobQueue, by: str) -> object:
    """Two jobs and one that will fail, a delayed one, and a schedule that is due in a second and then every day."""
    queue.push(note.bind(f"{by}-1"))
    queue.push_many([note.bind(f"{by}-2"), break_.bind(f"{by}-3")])
    queue.later(86_400, note.bind(f"{by}-later"))
    Scheduler(queue).every(
        note.bind(f"{by}-scheduled"), 86_400, id=f"every-day-{by}", start=datetime.now(UTC) + timedelta(seconds=1)
    )
    return queue.stats("released").pending


def fire(queue: JobQueue) -> object:
    """Wait for the schedule that `push` has left, and store its job."""
    scheduler, gives_up_at = Scheduler(queue), time.monotonic() + 20
    while (fired := scheduler.tick().fired) == 0 and time.monotonic() < gives_up_at:
        time.sleep(0.1)
    return fired


def work(queue: JobQueue) -> object:
    """Run what is due."""
    report = queue.work("released", 100)
    return {"done": report.done, "failed": report.failed}


def status(queue: JobQueue) -> object:
    """What people look at."""
    stats = queue.stats("released")
    failed = queue.failed_jobs()
    return {
        "pending": stats.pending,
        "completed": stats.completed,
        "failed": stats.failed,
        "schedules": sorted(schedule.id for schedule in Scheduler(queue).schedules()),
        "failures": sorted(one.job_name for one in failed),
        "workers": len(queue.workers()),
        "queues": [one.name for one in queue.queues()],
    }


def retry(queue: JobQueue) -> object:
    """Put one failed job back, cancel one that waits, pause and resume the queue."""
    failed = next(iter(queue.failed_jobs()))
    queue.retry_failed(failed.id)
    waiting = queue.push(note.bind("cancelled"))
    queue.cancel(waiting)
    queue.pause("released")
    queue.resume("released")
    return queue.get(waiting).status.value


def keep(queue: JobQueue) -> object:
    """Run a job that keeps its result and asks for one that comes next; of a release that knows both."""
    kept = queue.push(job(name="release.keep", queue="released", store_result=True)(ask_for_one))
    queue.work("released", 1)
    return str(kept)


def results(queue: JobQueue, *ids: str) -> object:
    """What is kept of these jobs, by the ids of those that are there."""
    return {each.id: each.result for each in queue.driver.get_results(ids)}


def clear(queue: JobQueue) -> object:
    """Delete all that can be deleted, and count the rest."""
    queue.clear("released")
    return queue.stats("released").total


def setup(queue: JobQueue) -> object:
    """What `protojobs migrate` does."""
    queue.driver.setup()
    return None


VERBS = {"setup": setup, "push": push, "fire": fire, "work": work, "status": status, "retry": retry}
VERBS |= {"keep": keep, "results": results, "clear": clear}


def main(url: str, steps: Sequence[str]) -> list[object]:
    """What each step answers; a refusal ends them."""
    queue = JobQueue(create_driver(url))
    answers: list[object] = []
    try:
        for step in steps:
            verb, _, words = step.partition(":")
            answers.append(VERBS[verb](queue, *words.split()))
    except SchemaOutdated as error:
        answers.append({"SchemaOutdated": str(error)})
    finally:
        queue.close()
        queue.driver.close()
    return answers


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2:])))
