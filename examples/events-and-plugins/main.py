"""How do I hear of what happens, in my program and in a plugin?"""

import logging
import sys
import threading
from contextlib import contextmanager

from protojobs import JobContext, JobQueue, Settings, create_driver, events, hookimpl, job
from protojobs.errors import PushRejected
from protojobs.port.records import NewJob

said = threading.Lock()


def say(text: str) -> None:
    with said:
        print(text)


@job(queue="default", max_retries=0)
def divide(a: int, b: int) -> float:
    return a / b


# ----------------------------------------------------------------- in your program: a listener for each kind of event


@events.on("job.failed")
def tell_me(event):
    say(f"  event: {event.get('job_class')} failed: {event.exception}")


@events.on("job.processed")
def listener_with_a_bug(event):
    raise RuntimeError("a listener's own trouble changes nothing")


# -------------------------------------------------- in a plugin: a module; or a package with an entry point, see README


@hookimpl
def protojobs_before_push(job: NewJob) -> NewJob | None:
    """A transform may change a job, or veto it."""
    if '"b":13' in job.data:
        raise PushRejected("we never divide by 13")
    return None


@hookimpl
def protojobs_around_job(context: JobContext):
    """Runs around each job, in its thread: for tracing, a database session, a log context."""

    @contextmanager
    def around():
        say(f"  plugin: {context.job_name.rpartition('.')[2]} begins")
        yield
        say("  plugin: and has ended")

    return around()


@hookimpl
def protojobs_job_processed(event: events.JobProcessed) -> None:
    """Observers are the same events."""
    say(f"  plugin: the result is {event.result}")


def main() -> None:
    logging.getLogger("protojobs.hooks").disabled = True  # it would tell of the listener's bug, at length
    this_module = sys.modules[__name__]
    sys.modules["our_plugin"] = this_module  # a real one is a file, named in `plugins` or installed
    queue = JobQueue(create_driver("memory://"), Settings(plugins=("our_plugin",), concurrency=1))
    queue.driver.setup()
    for a, b in ((6, 3), (1, 0), (1, 13)):
        try:
            queue.push(divide.bind(a, b))
        except PushRejected as error:
            say(f"not pushed: {error}")
    for _ in range(2):
        queue.work("default", 1)
    stats = queue.stats()
    say(f"{stats.completed} completed, {stats.failed} failed")


if __name__ == "__main__":
    main()
