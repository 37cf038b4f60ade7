"""A row that something other than protojobs has spoilt: it is set aside, shown and told, and holds up nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest
from sqlalchemy import bindparam, create_engine, text

from protojobs import JobQueue
from protojobs.doctor import examine
from protojobs.entropy import fresh_id
from protojobs.port.diagnosis import Severity
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.records import CancelAnswer, ClaimedJob, JobFilter, JobRecord, NewJob, Settlement, WorkerInfo
from protojobs_sqlalchemy import SQLAlchemyDriver
from protojobs_sqlalchemy.tables.tables import PLAIN

KINDS = ("sqlite", "postgresql", "mariadb")

# What SQL to set the column to, on which databases, and what an exception says of it.
SPOILT: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    ("data", "CAST(x'7b22ff227d' AS TEXT)", ("sqlite",), "data is b'{\"\\xff\"}', not text in UTF-8"),
    ("data", "x'ff00'", ("sqlite",), "data is b'\\xff\\x00', not text in UTF-8"),
    ("job_name", "CAST(x'ff' AS TEXT)", ("sqlite",), "job_name is b'\\xff', not text"),
    ("job_class", "x'6d'", ("sqlite",), "job_class is b'm', not text"),
    ("meta", "x'ff'", ("sqlite",), "meta is b'\\xff', not text in UTF-8"),
    ("retry_policy", "x'ff'", ("sqlite",), "retry_policy is b'\\xff', not text in UTF-8"),
    ("timeout", "'soon'", ("sqlite",), "timeout is 'soon', not a number of seconds"),
    ("timeout", "1e300", KINDS, "timeout is 1e+300, not a number of seconds"),
    ("timeout", "-1", KINDS, "timeout is -1"),
    ("timeout", "'NaN'", ("postgresql",), "timeout is nan, not a number of seconds"),
    ("retry_delay", "'later'", ("sqlite",), "retry_delay is 'later', not a number of seconds"),
    ("retry_delay", "'infinity'", ("postgresql",), "retry_delay is inf, not a number of seconds"),
    ("max_retries", "'x'", ("sqlite",), "max_retries is 'x', not a whole number"),
    ("max_retries", "-3", KINDS, "max_retries is -3, not a whole number"),
    ("attempts", "-3", KINDS, "attempts is -2, not a whole number"),
    ("crashes", "'x'", ("sqlite",), "crashes is 'x', not a whole number"),
    ("returns", "-1", KINDS, "returns is -1, not a whole number"),
    ("reclaims", "1.5", ("sqlite",), "reclaims is 1.5, not a whole number"),
    ("priority", "'high'", ("sqlite",), "priority is 'high', not a priority"),
    ("available_at", "-4611686018427387904", ("sqlite",), "available_at is -4611686018427387904, not a time"),
    ("available_at", "0.5", ("sqlite",), "available_at is 0.5, not a time"),
    ("available_at", "'-infinity'", ("postgresql",), "available_at is None, not a time"),
)
# These cannot be lent at all, or do no harm.
STRANGE: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("status", "'sleeping'", KINDS),
    ("status", "''", KINDS),
    ("status", "x'70656e64696e67'", ("sqlite",)),
    ("queue", "x'71'", ("sqlite",)),
    ("id", "x'78'", ("sqlite",)),
    ("id", "'x'", ("sqlite",)),
    ("available_at", "'soon'", ("sqlite",)),
    ("available_at", "4611686018427387904", ("sqlite",)),
    ("available_at", "'infinity'", ("postgresql",)),
    *((f"{name}_at", "'soon'", ("sqlite",)) for name in ("created", "reserved", "processed", "cancel_requested")),
    *((f"{name}_at", "'-infinity'", ("postgresql",)) for name in ("created", "reserved", "processed")),
    ("reason", "x'ff'", ("sqlite",)),
    ("progress", "'half'", ("sqlite",)),
    ("progress", "'NaN'", ("postgresql",)),
    ("claim_seq", "'x'", ("sqlite",)),
    ("claim_seq", "2147483647", KINDS),
    ("attempts", "2147483647", KINDS),
    ("attempts", "9223372036854775807", ("sqlite",)),
    ("attempts", "'many'", ("sqlite",)),
    ("returns", "2147483647", KINDS),
    ("reclaims", "2147483647", KINDS),
    ("crashes", "2147483647", KINDS),
    ("reserved_by", "'nobody'", KINDS),
    ("moving_token", "'t'", KINDS),
)

Opened = Callable[[str], SQLAlchemyDriver]
LOOKS: Mapping[str, Callable[[SQLAlchemyDriver], object]] = {
    "find": lambda driver: driver.find(JobFilter(), chars_max=20),
    **{
        f"find {state.value}": lambda driver, state=state: driver.find(JobFilter(states=(state,), queue="q"))
        for state in JobState
    },
    "failed": lambda driver: driver.failed(chars_max=100),
    "stats": lambda driver: driver.stats(),
    "queues": lambda driver: driver.queues(),
    "workers": lambda driver: driver.workers(),
    "groups": lambda driver: driver.failure_groups(),
    "oldest": lambda driver: driver.oldest_ended(),
    "depths": lambda driver: driver.sample_depths(),
    "doctor": lambda driver: examine(JobQueue(driver)),
}


@pytest.fixture
def opened(make_store_url: Callable[[str], str]) -> Iterator[Opened]:
    drivers: list[SQLAlchemyDriver] = []

    def open_(kind: str) -> SQLAlchemyDriver:
        drivers.append(SQLAlchemyDriver(make_store_url(kind)))
        drivers[-1].setup()
        return drivers[-1]

    yield open_
    for driver in drivers:
        driver.close()


def new_job(**changes: object) -> NewJob:
    values: dict[str, object] = {"id": fresh_id(), "queue": "q", "job_name": "n", "job_class": "c", "data": "{}"}
    return NewJob(**values | changes)  # type: ignore[arg-type]


def join(driver: SQLAlchemyDriver, *, lease_s: float = 60.0) -> str:
    worker = fresh_id()
    info = WorkerInfo(id=worker, host="h", pid=1, queues=("q",), concurrency=1, lease_s=lease_s)
    driver.register(info)
    return worker


def spoil(driver: SQLAlchemyDriver, job_id: str, **columns: str) -> None:
    """Write these pieces of SQL into the job's row, as a foreign hand would."""
    changes = ", ".join(f"{name} = {value}" for name, value in columns.items())
    with create_engine(driver.engine.url).begin() as conn:
        said = text(f"UPDATE jobs SET {changes} WHERE id = :id").bindparams(bindparam("id", type_=PLAIN.jobs.c.id.type))
        assert conn.execute(said, {"id": job_id}).rowcount == 1


def look(driver: SQLAlchemyDriver, ids: list[str], worker: str) -> None:
    """Everything that looks; nothing raises, and nothing is left out that is not named by an id of its own."""
    for verb in LOOKS.values():
        verb(driver)
    driver.held(worker)
    driver.get(ids)
    driver.get_failed(ids)
    for job_id in ids:
        driver.in_front(job_id)


def job(driver: SQLAlchemyDriver, job_id: str) -> JobRecord:
    (found,) = driver.get([job_id])
    return found


def say(driver: SQLAlchemyDriver, claims: list[ClaimedJob], verb: Verb) -> None:
    driver.settle([Settlement(id=c.id, claim_seq=c.claim_seq, reserved_by=c.reserved_by, verb=verb) for c in claims])


def each(cases: tuple[tuple[object, ...], ...]) -> list[object]:
    return [
        pytest.param(kind, *case[:2], *case[3:], id=f"{kind}-{case[0]}-{case[1]}")
        for case in cases
        for kind in case[2]  # type: ignore[attr-defined]
    ]


@pytest.mark.parametrize(("kind", "column", "value", "why"), each(SPOILT))
def test_a_claim_sets_it_aside_and_lends_its_neighbours(
    opened: Opened, kind: str, column: str, value: str, why: str
) -> None:
    driver = opened(kind)
    first, bad, last = ids = [answer.id for answer in driver.enqueue([new_job() for _ in range(3)])]
    spoil(driver, bad, **{column: value})
    worker = join(driver)
    look(driver, ids, worker)
    claims = driver.claim(worker, ["q"], slots=10, limit=10)
    assert [claim.id for claim in claims] == [first, last]
    assert job(driver, bad).status is JobState.FAILED
    (failure,) = driver.failed().jobs
    assert failure.job_id == bad
    assert failure.exception.startswith(f"The stored row cannot be read: {why}")
    assert failure.fingerprint == "unreadable"
    look(driver, ids, worker)
    say(driver, claims, Verb.COMPLETE)
    assert driver.stats() == driver.stats("q")
    assert (driver.stats().completed, driver.stats().failed) == (2, 1)
    (finding,) = [one for one in examine(JobQueue(driver)) if one.code == "jobs_unreadable"]
    assert finding.severity is Severity.ERROR
    assert bad in finding.what
    assert driver.forget_failed([failure.id]) == 1
    assert driver.find(JobFilter(states=(JobState.FAILED,))).jobs == ()


@pytest.mark.parametrize(("kind", "column", "value"), each(STRANGE))
def test_what_cannot_be_lent_or_does_no_harm_holds_up_no_verb(
    opened: Opened, kind: str, column: str, value: str
) -> None:
    driver = opened(kind)
    first, bad, last = ids = [answer.id for answer in driver.enqueue([new_job() for _ in range(3)])]
    spoil(driver, bad, **{column: value})
    worker = join(driver)
    look(driver, ids, worker)
    for verb in (Verb.RETRY, Verb.SNOOZE, Verb.RELEASE):
        claims = driver.claim(worker, ["q"], slots=1, limit=10)
        assert {first, last} <= {claim.id for claim in claims}
        look(driver, ids, worker)
        say(driver, claims, verb)
    assert {first, last} <= {claim.id for claim in driver.claim(worker, ["q"], slots=1, limit=10)}
    driver.leave(worker)
    assert {first, last} <= {lost.id for lost in driver.reclaim(100).jobs}
    look(driver, ids, worker)
    driver.wait(["q"], 0.01)
    driver.cancel(ids)
    driver.clear("q")
    assert not {first, last} & {one.id for one in driver.find(JobFilter()).jobs}


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_that_nobody_knows_is_shown_found_told_and_cancelled(opened: Opened, kind: str) -> None:
    driver = opened(kind)
    good, bad, other = (answer.id for answer in driver.enqueue([new_job() for _ in range(3)]))
    spoil(driver, bad, status="'sleeping'")
    spoil(driver, other, status="'zzz'")
    seen = job(driver, bad)
    assert seen.status is JobState.UNREADABLE
    assert seen.reason == "The stored row cannot be read: status is 'sleeping', not a state of a job."
    assert [one.id for one in driver.find(JobFilter(states=(JobState.UNREADABLE,))).jobs] == [other, bad]
    assert [one.id for one in driver.find(JobFilter(states=(JobState.UNREADABLE,), queue="r")).jobs] == []
    both = JobFilter(states=(JobState.UNREADABLE, JobState.PENDING))
    assert {one.id for one in driver.find(both).jobs} == {good, bad, other}
    (finding,) = [one for one in examine(JobQueue(driver)) if one.code == "jobs_unreadable"]
    assert f'2 jobs in no known state: "{other}", "{bad}".' in finding.what
    assert driver.cancel([bad, other]) == [CancelAnswer.CANCELLED] * 2
    assert job(driver, bad).status is JobState.CANCELLED
    assert driver.stats().cancelled == 2
    assert driver.clear("q").total == 3


@pytest.mark.parametrize("value", ["'soon'", "4611686018427387904"])
def test_one_that_is_due_at_no_time_is_told_and_cancelled(opened: Opened, value: str) -> None:
    driver = opened("sqlite")
    (job_id,) = (answer.id for answer in driver.enqueue([new_job()]))
    spoil(driver, job_id, available_at=value)
    (finding,) = [one for one in examine(JobQueue(driver)) if one.code == "jobs_unreadable"]
    assert f'1 job pending: "{job_id}"' in finding.what
    assert driver.cancel([job_id]) == [CancelAnswer.CANCELLED]


@pytest.mark.parametrize("kind", KINDS)
def test_a_processing_job_that_nobody_holds_is_taken_back(opened: Opened, kind: str) -> None:
    driver = opened(kind)
    lost, other = (answer.id for answer in driver.enqueue([new_job(), new_job()]))
    worker = join(driver)
    driver.claim(worker, ["q"], slots=10, limit=10)
    spoil(driver, lost, reserved_by="NULL")
    assert [one.id for one in driver.reclaim(10).jobs] == [lost]
    assert (job(driver, lost).status, job(driver, other).status) == (JobState.PENDING, JobState.PROCESSING)


@pytest.mark.parametrize("kind", KINDS)
def test_a_claim_goes_on_behind_more_of_them_than_it_may_lend(opened: Opened, kind: str) -> None:
    driver = opened(kind)
    ids = [answer.id for answer in driver.enqueue([new_job() for _ in range(7)])]
    for bad in ids[:6]:
        spoil(driver, bad, timeout="-1")
    claims = driver.claim(join(driver), ["q"], slots=2, limit=2)
    assert [claim.id for claim in claims] == ids[6:]
    assert driver.stats().failed == 6


@pytest.mark.parametrize("kind", KINDS)
def test_a_turn_that_settles_meets_one_too(opened: Opened, kind: str) -> None:
    driver = opened(kind)
    first, bad, last = (answer.id for answer in driver.enqueue([new_job() for _ in range(3)]))
    worker = join(driver)
    (claim,) = driver.claim(worker, ["q"], slots=1, limit=1)
    spoil(driver, bad, timeout="-1")
    done = Settlement(id=claim.id, claim_seq=claim.claim_seq, reserved_by=worker, verb=Verb.COMPLETE)
    reply = driver.settle_and_claim(worker, [done], ["q"], slots=5, limit=5)
    assert [(one.id, one.state) for one in reply.settled] == [(first, JobState.COMPLETED)]
    assert [one.id for one in reply.claimed] == [last]
    assert job(driver, bad).status is JobState.FAILED


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_was_spoilt_while_it_was_held_is_not_adopted_but_set_aside(opened: Opened, kind: str) -> None:
    driver = opened(kind)
    bad, good = (answer.id for answer in driver.enqueue([new_job(), new_job()]))
    worker = join(driver)
    driver.claim(worker, ["q"], slots=10, limit=10)
    spoil(driver, bad, timeout="-1")
    assert [one.id for one in driver.held(worker)] == [good]
    assert job(driver, bad).status is JobState.FAILED


def test_bytes_that_are_text_are_the_jobs_data(opened: Opened) -> None:
    driver = opened("sqlite")
    (job_id,) = (answer.id for answer in driver.enqueue([new_job()]))
    spoil(driver, job_id, data="x'7b2261223a20c3a47d'")  # as a json library hands it out that writes bytes
    (claim,) = driver.claim(join(driver), ["q"], slots=1, limit=1)
    assert claim.data == '{"a": ä}'
    assert job(driver, job_id).data == '{"a": ä}'
    assert driver.find(JobFilter(), chars_max=7).jobs[0].data == '{"a": ä'


def test_a_retried_job_whose_column_was_corrected_runs(opened: Opened) -> None:
    driver = opened("sqlite")
    (job_id,) = (answer.id for answer in driver.enqueue([new_job()]))
    spoil(driver, job_id, timeout="'soon'")
    worker = join(driver)
    assert driver.claim(worker, ["q"], slots=1, limit=1) == []
    spoil(driver, job_id, timeout="60")
    driver.retry_failed([failure.id for failure in driver.failed().jobs])
    assert [claim.id for claim in driver.claim(worker, ["q"], slots=1, limit=1)] == [job_id]
    assert job(driver, job_id).reason is None
