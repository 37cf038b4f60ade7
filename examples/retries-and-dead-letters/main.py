"""What happens when a job fails?"""

from protojobs import Job, JobQueue, create_driver

bank_is_open = False


class BankClosed(Exception):
    """Worth another try."""


class ChargeCard(Job):
    queue = "payments"
    max_retries = 2  # runs after the first, so at most three
    retry_delay = 0.1  # then 0.2 s, 0.4 s ...; in production 60, say
    retry_on = (BankClosed,)  # anything else is a mistake, and waiting does not mend mistakes

    def handle(self, data):
        if data["card"] == "":
            raise ValueError("there is no card")
        if not bank_is_open:
            raise BankClosed("the bank is closed")
        print(f"  charged {data['amount']} to {data['card']}")

    def failed(self, exception, data):
        print(f"  given up on order {data['order']}: {exception}")


def main() -> None:
    global bank_is_open
    queue = JobQueue(create_driver("memory://"))
    queue.driver.setup()
    queue.push(ChargeCard, {"order": 1, "card": "4242", "amount": 10})
    queue.push(ChargeCard, {"order": 2, "card": "", "amount": 20})

    print("while the bank is closed:")
    while queue.stats("payments").pending:
        queue.work("payments", 1)

    print("the failed jobs, with all that is needed to understand them:")
    for failed in queue.failed_jobs():
        reason = failed.exception.strip().splitlines()[-1]
        print(f"  {failed.data}  after {failed.attempts} attempt(s): {reason}")

    bank_is_open = True
    print("the bank has opened, run them again:")
    print("  they are", [str(answer) for answer in queue.retry_failed([failed.id for failed in queue.failed_jobs()])])
    queue.work("payments", 10)
    stats = queue.stats("payments")
    print(f"{stats.completed} completed, {stats.failed} failed: the one without a card, once more")


if __name__ == "__main__":
    main()
