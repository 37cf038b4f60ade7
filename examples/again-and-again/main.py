"""How do I run a job again and again, and never twice for the same time?"""

import threading
import time

from protojobs import JobContext, JobQueue, Scheduler, StopToken, create_driver, job

ran: list[str] = []


@job(name="stock.count", queue="default")
def count_stock(shelf: str, context: JobContext) -> None:
    ran.append(f"{shelf} for {context.meta.get('due_at', 'a person')}")


def main() -> None:
    queue = JobQueue(create_driver("memory://"))
    queue.driver.setup()
    scheduler = Scheduler(queue)

    # A schedule is stored, with its data. Its id is what it is known by: registered again it stays one.
    for _ in range(2):
        scheduler.daily(count_stock, {"shelf": "A"}, "07:00", id="mornings", timezone="Europe/Berlin")
        scheduler.cron(count_stock, "0 18 L * *", {"shelf": "all"}, id="month-end", overlap="skip")
    print("stored:", ", ".join(f"{one.id} ({one.spec})" for one in scheduler.schedules()))

    # Whoever ticks: a worker, `protojobs scheduler`, a thread of your own. Here two do, for one schedule.
    scheduler.every(count_stock, 1, {"shelf": "B"}, id="each-second", misfire="all")
    stop = StopToken()
    tickers = [threading.Thread(target=Scheduler(queue).run, args=(stop,)) for _ in range(2)]
    for ticker in tickers:
        ticker.start()
    until = time.monotonic() + 30
    while len(ran) < 2 and time.monotonic() < until:
        queue.work("default", 1)
        time.sleep(0.05)
    stop.stop()
    for ticker in tickers:
        ticker.join(10)
    print("two tickers, and each second once:", len(ran) == len(set(ran)) >= 2)

    print("paused:", scheduler.pause("each-second"))
    queue.work("default", 10)  # what had been fired by then
    ran.clear()
    scheduler.run_now("month-end")
    queue.work("default", 10)
    print("by hand:", ran)
    print("removed:", scheduler.remove("each-second"), len(scheduler.schedules()))


if __name__ == "__main__":
    main()
