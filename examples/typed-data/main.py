"""How do I get wrong data refused when it is pushed?"""

from dataclasses import dataclass
from datetime import date

from protojobs import Job, JobQueue, create_driver, job
from protojobs.errors import PayloadError


@dataclass
class Trip:
    """A dataclass; a TypedDict or a msgspec.Struct does as well."""

    city: str
    day: date
    travellers: int = 1


class BookTrip(Job[Trip]):
    queue = "trips"

    def handle(self, data: Trip):
        print(f"  {data.travellers} to {data.city} on {data.day:%A, %d %B %Y}")  # data is a Trip, its day a date


@job(queue="trips")
def cancel(trip: int, refund: bool = False) -> None:
    """A function's annotations are its data type."""
    print(f"  trip {trip} cancelled, refund: {refund}")


def main() -> None:
    queue = JobQueue(create_driver("memory://"))
    queue.driver.setup()

    print("accepted:")
    queue.push(BookTrip, Trip("Rome", date(2030, 5, 1), 2))
    queue.push(BookTrip, {"city": "Oslo", "day": "2030-12-24"})
    queue.push(cancel.bind(7, refund=True))
    queue.work("trips", 10)

    print("refused, here, where the mistake is, and nothing was stored:")
    for wrong in (
        {"city": "Rome", "day": "tomorrow"},
        {"city": "Rome"},
        {"city": "Rome", "day": "2030-05-01", "travelers": 2},
        {"city": "Rome", "day": "2030-05-01", "travellers": "two"},
        {"city": "Rome", "day": "2030-05-01", "travellers": float("nan")},
    ):
        try:
            queue.push(BookTrip, wrong)
        except PayloadError as error:
            print(f"  {error.path}: {error.message.partition(': ')[2]}")
    try:
        queue.push(cancel.bind("seven"))
    except PayloadError as error:
        print(f"  {error.path}: {error.message.partition(': ')[2]}")
    print(f"pending: {queue.stats().pending}")


if __name__ == "__main__":
    main()
