"""`assert_idempotent`: it finds what a crash would break, and passes what would survive."""

from __future__ import annotations

import asyncio

import pytest

from protojobs import Discard, Job, JobContext, Snooze, job
from protojobs.testing import assert_idempotent


class Shop:
    """The world outside: a card that is charged, mails that are sent, keys that were seen."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.charges: list[int] = []
        self.mails: list[str] = []
        self.keys: set[str] = set()

    def observe(self) -> object:
        return {"charges": list(self.charges), "mails": list(self.mails)}


@pytest.fixture
def shop() -> Shop:
    return Shop()


def message(run) -> str:
    with pytest.raises(AssertionError) as caught:
        run()
    return str(caught.value)


def test_a_job_that_charges_twice_is_found_and_the_places_are_named(shop: Shop) -> None:
    @job(name="charge")
    def charge(amount: int, context: JobContext) -> None:
        with context.effect("charge the card"):
            shop.charges.append(amount)

    text = message(lambda: assert_idempotent(charge.bind(10), observe=shop.observe, reset=shop.reset))
    assert text.splitlines() == [
        '"charge" is not idempotent. Run again after a crash, it leaves something else (+) than one run (-):',
        "  crashed after its last line, before the store heard of it:",
        "    - {'charges': [10], 'mails': []}",
        "    + {'charges': [10, 10], 'mails': []}",
        '  crashed after "charge the card":',
        "    - {'charges': [10], 'mails': []}",
        "    + {'charges': [10, 10], 'mails': []}",
    ]


def test_a_job_that_keeps_the_key_with_the_effect_passes(shop: Shop) -> None:
    @job(name="charge")
    def charge(amount: int, context: JobContext) -> None:
        with context.effect("charge the card"):
            if context.id not in shop.keys:  # one step, as by a provider with idempotency keys
                shop.keys.add(context.id)
                shop.charges.append(amount)

    assert_idempotent(charge.bind(10), observe=shop.observe, reset=shop.reset, effects=["charge the card"])


def test_a_key_that_is_stored_before_the_effect_loses_it(shop: Shop) -> None:
    @job(name="charge")
    def charge(amount: int, context: JobContext) -> None:
        if context.id in shop.keys:
            return
        with context.effect("remember"):
            shop.keys.add(context.id)
        with context.effect("charge the card"):
            shop.charges.append(amount)

    text = message(lambda: assert_idempotent(charge.bind(10), observe=shop.observe, reset=shop.reset))
    places = [line.strip() for line in text.splitlines() if line.startswith("  crashed")]
    assert places == ['crashed after "remember":', 'crashed before "charge the card":']


def test_the_claim_is_no_key(shop: Shop) -> None:
    @job(name="charge")
    def charge(amount: int, context: JobContext) -> None:
        key = f"{context.id}/{context.claim_seq}"
        if key not in shop.keys:
            shop.keys.add(key)
            shop.charges.append(amount)

    assert "is not idempotent" in message(
        lambda: assert_idempotent(charge.bind(10), observe=shop.observe, reset=shop.reset)
    )


def test_without_declared_effects_it_is_run_twice(shop: Shop) -> None:
    @job(name="append")
    def append() -> None:
        shop.charges.append(1)

    @job(name="set")
    def put() -> None:
        shop.charges = [1]

    text = message(lambda: assert_idempotent(append, observe=shop.observe, reset=shop.reset))
    assert text.count("crashed") == 1
    assert_idempotent(put, observe=shop.observe, reset=shop.reset)


def test_each_occurrence_of_an_effect_is_a_place_to_die_at(shop: Shop) -> None:
    @job(name="mails")
    def mails(to: list[str], context: JobContext) -> None:
        for one in to:
            with context.effect("mail"):
                shop.mails.append(one)

    text = message(lambda: assert_idempotent(mails.bind(["a", "b"]), observe=shop.observe, reset=shop.reset))
    places = [line.strip() for line in text.splitlines() if line.startswith("  crashed")]
    assert places[1:] == [
        'crashed after "mail" (number 1):',
        'crashed before "mail" (number 2):',
        'crashed after "mail" (number 2):',
    ]


def test_class_jobs_and_async_jobs_take_part(shop: Shop) -> None:
    class Charge(Job):
        name = "charge"

        async def handle(self, data: dict[str, int], context: JobContext) -> None:
            with context.effect("charge the card"):
                await asyncio.sleep(0)
                shop.charges.append(data["amount"])

    text = message(lambda: assert_idempotent(Charge, {"amount": 1}, observe=shop.observe, reset=shop.reset))
    assert 'crashed after "charge the card":' in text


def test_no_except_exception_survives_the_crash(shop: Shop) -> None:
    @job(name="stubborn")
    def stubborn(context: JobContext) -> None:
        try:
            with context.effect("charge"):
                shop.charges = [1]
        except Exception:
            shop.charges = [2]

    assert_idempotent(stubborn, observe=shop.observe, reset=shop.reset)


def test_but_a_bare_except_does_and_is_complained_of(shop: Shop) -> None:
    @job(name="immortal")
    def immortal(context: JobContext) -> None:
        try:
            with context.effect("charge"):
                shop.charges = [1]
        except BaseException:
            pass

    text = message(lambda: assert_idempotent(immortal, observe=shop.observe, reset=shop.reset))
    assert 'crashed before "charge", and caught the crash: catch Exception, not BaseException.' in text


def test_a_second_run_that_fails_is_complained_of_with_its_exception(shop: Shop) -> None:
    @job(name="insert", max_retries=1)
    def insert() -> None:
        if "row" in shop.keys:
            raise LookupError("duplicate key")
        shop.keys.add("row")

    with pytest.raises(AssertionError, match="fails when it runs again") as caught:
        assert_idempotent(insert, observe=shop.observe, reset=shop.reset)
    assert isinstance(caught.value.__cause__, LookupError)


def test_a_second_run_may_take_retries_and_snoozes(shop: Shop) -> None:
    waits: list[str] = []

    @job(name="locked", retry_delay=3600)
    def locked(context: JobContext) -> object:
        if "lock" in shop.keys:  # left behind by the run that died; it is given up after a while
            if len(waits) % 2 == 0:
                waits.append("snooze")
                return Snooze(3600)
            waits.append("error")
            shop.keys.remove("lock")
            raise TimeoutError("locked by another run")
        with context.effect("lock"):
            shop.keys.add("lock")
        shop.charges = [1]
        shop.keys.remove("lock")
        return Discard("that will do")

    assert_idempotent(locked, observe=shop.observe, reset=shop.reset)
    assert waits == ["snooze", "error"]


def test_a_job_that_fails_by_itself_is_no_case(shop: Shop) -> None:
    @job(name="broken")
    def broken() -> None:
        raise ValueError("no luck")

    with pytest.raises(AssertionError, match="fails even when nothing disturbs it") as caught:
        assert_idempotent(broken, observe=shop.observe, reset=shop.reset)
    assert isinstance(caught.value.__cause__, ValueError)


def test_effects_given_must_be_those_declared(shop: Shop) -> None:
    @job(name="quiet")
    def quiet(context: JobContext) -> None:
        with context.effect("a"):
            pass

    text = message(lambda: assert_idempotent(quiet, observe=shop.observe, reset=shop.reset, effects=["b"]))
    assert text == "\"quiet\" declares other effects: missing ['b'], unexpected ['a']."


def test_each_world_begins_with_a_reset(shop: Shop) -> None:
    resets: list[int] = []

    @job(name="quiet")
    def quiet(context: JobContext) -> None:
        with context.effect("a"):
            pass

    assert_idempotent(quiet, observe=shop.observe, reset=lambda: resets.append(1))
    assert len(resets) == 4  # undisturbed, after the last line, before and after the effect
