"""How do I write a job and run it?"""

import tempfile
from pathlib import Path

from protojobs import Job, JobQueue, create_driver, job


class SendWelcome(Job):
    """A job is a class with `handle`. What it needs to know comes as `data`."""

    queue = "emails"
    max_retries = 3

    def handle(self, data):
        print(f"  welcome, {data['name']} <{data['email']}>")


@job(queue="math")
def add(a: int, b: int) -> int:
    """Or a function. It stays one: add(1, 2) is 3, here and now."""
    print(f"  {a} + {b} = {a + b}")
    return a + b


def main() -> None:
    folder = tempfile.TemporaryDirectory()
    queue = JobQueue(create_driver(f"sqlite:///{Path(folder.name) / 'jobs.db'}"))
    queue.driver.setup()  # creates the tables; `protojobs migrate` does the same

    job_id = queue.push(SendWelcome, {"name": "Jo", "email": "jo@example.com"})
    queue.push(add.bind(2, 3))
    print(f"pushed, nothing has run yet: {queue.stats().pending} pending")

    # In production this is another process: `protojobs worker emails math --app your.module`.
    print("a worker runs them:")
    report = queue.work(["emails", "math"], 10)

    print(f"{report.done} done; the first one is {queue.get(job_id).status}")
    queue.driver.close()
    folder.cleanup()


if __name__ == "__main__":
    main()
