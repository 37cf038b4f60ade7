"""How do I run a job later, or before others?"""

import time
from datetime import UTC, datetime, timedelta

from protojobs import JobQueue, create_driver, job

order: list[str] = []


@job(queue="default")
def note(text: str) -> None:
    order.append(text)


def main() -> None:
    queue = JobQueue(create_driver("memory://"))
    queue.driver.setup()

    # Within a queue: priority from -100 to 100, higher first, then the older one.
    queue.push(note.bind("ordinary"))
    queue.push(note.bind("also ordinary"))
    queue.push(note.with_priority(-10).bind("when there is time"))
    queue.push(note.with_priority(10).bind("important"))
    # Between queues: the order in which the worker is told to serve them.
    queue.push(note.on_queue("urgent").bind("urgent"))
    queue.work(["urgent", "default"], 10, concurrency=1)
    print("in this order:", ", ".join(order))

    order.clear()
    queue.later(0.5, note.bind("in half a second"))
    queue.later(timedelta(hours=1), note.bind("in an hour"))
    queue.later(datetime.now(UTC) + timedelta(days=1), note.bind("tomorrow"))
    queue.work("default", 10)
    print(f"at once: {order}; scheduled: {queue.stats().scheduled}")
    time.sleep(0.6)
    queue.work("default", 10)
    print(f"after 0.6 s: {order}; scheduled: {queue.stats().scheduled}")

    try:
        queue.later(datetime(2030, 1, 1), note.bind("when exactly?"))  # noqa: DTZ001  (that is the point)
    except ValueError as error:
        print("refused:", error)


if __name__ == "__main__":
    main()
