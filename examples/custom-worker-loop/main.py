"""How do I write a worker loop of my own?"""

import signal
import threading

from protojobs import JobQueue, Settings, StopToken, WorkReport, create_driver, job

processed: list[int] = []
all_done = threading.Event()


@job(queue="default")
def work_hard(number: int) -> None:
    processed.append(number)
    if len(processed) == 20:
        all_done.set()


def main() -> None:
    queue = JobQueue(create_driver("memory://"), Settings(concurrency=1, poll_interval=0.1))
    queue.driver.setup()

    # A loop that stays in charge: one job at a time, with whatever you like in between. It keeps one lease
    # throughout, so it counts as one worker.
    queue.push_many(work_hard.bind(number) for number in range(5))
    rounds = 0
    while queue.work("default", 1).runs:
        rounds += 1
    print(f"one by one: {len(processed)} jobs in {rounds} rounds")

    # Without a maximum work() goes on until its token says stop. Running jobs are finished first, and what has not
    # begun goes back unspent. protojobs installs no signal handlers: this is your program.
    stop = StopToken()
    before = signal.signal(signal.SIGTERM, lambda *_: stop.stop())
    reports: list[WorkReport] = []
    worker = threading.Thread(target=lambda: reports.append(queue.work("default", stop=stop)))
    worker.start()
    queue.push_many(work_hard.bind(number) for number in range(5, 20))
    assert all_done.wait(10)
    signal.raise_signal(signal.SIGTERM)
    worker.join(10)
    signal.signal(signal.SIGTERM, before)
    print(f"until told to stop: {reports[0].done} done, ended because: {reports[0].reason}")
    print("pending:", queue.stats().pending)


if __name__ == "__main__":
    main()
