"""The guard of what a turn touches: it fills stores as pushes would, counts right, and sees what is not flat."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from protojobs import create_driver
from protojobs.port.lifecycle import JobState
from protojobs.port.records import JobFilter, WorkerInfo
from protojobs_sqlalchemy import SQLAlchemyDriver

if TYPE_CHECKING:
    from filling import Backlog

pytestmark = pytest.mark.slow  # run by `python3 dev.py test-slow`

ROOT = Path(__file__).resolve().parents[1]
WORKER = WorkerInfo(id="w", host="h", pid=1, queues=("default",), concurrency=1, lease_s=60)


@pytest.fixture(autouse=True)
def bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark's own modules can be imported."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


def filled(url: str, *backlogs: Backlog) -> SQLAlchemyDriver:
    import filling

    driver = create_driver(url)
    assert isinstance(driver, SQLAlchemyDriver)
    driver.setup()
    for backlog in backlogs:
        filling.fill(driver, backlog)
    return driver


# ---------------------------------------------------------------------------------------------------------- the fill


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
class TestFilling:
    def test_the_jobs_are_as_if_they_had_been_pushed(self, kind: str, make_store_url: Callable[[str], str]) -> None:
        from filling import Backlog

        with closing(filled(make_store_url(kind), Backlog(5_000, job_name="noop"))) as driver:
            driver.register(WORKER)
            assert driver.stats("default").pending == 5_000
            claimed = driver.claim("w", ["default"], slots=1_000, limit=1_000)
            places = [(job.available_at, job.id) for job in claimed]
            assert len(claimed) == len({job.id for job in claimed}) == 1_000
            assert places == sorted(places)
            assert [job.id for job in claimed] == sorted(job.id for job in claimed)
            assert {job.id[14] for job in claimed} == {"7"}
            assert {(job.job_name, job.data, job.attempts, job.claim_seq) for job in claimed} == {("noop", "{}", 1, 1)}
            assert driver.find(JobFilter(), limit=1).jobs[0].id > claimed[-1].id

    def test_what_is_not_due_is_not_claimed_and_each_queue_has_its_share(
        self, kind: str, make_store_url: Callable[[str], str]
    ) -> None:
        from filling import Backlog

        later, spread = Backlog(300, delay=3_600.0), Backlog(300, queue="q", queues=3)
        with closing(filled(make_store_url(kind), later, spread)) as driver:
            driver.register(WORKER)
            assert driver.claim("w", ["default"], slots=10, limit=10) == []
            assert spread.names == ["q0000", "q0001", "q0002"]
            assert [driver.stats(name).pending for name in spread.names] == [100] * 3

    def test_finished_jobs_are_counted_and_pruned(self, kind: str, make_store_url: Callable[[str], str]) -> None:
        from filling import Backlog

        with closing(filled(make_store_url(kind), Backlog(300, is_finished=True))) as driver:
            assert driver.stats("default").completed == 300
            found = driver.find(JobFilter(), limit=1).jobs[0]
            assert found.status is JobState.COMPLETED
            assert driver.prune(completed_older_than=86_400.0, limit=200).completed == 200
            assert driver.stats("default").completed == 100


# --------------------------------------------------------------------------------------------------------- the counts


def test_postgresql_counts_each_page_by_table_and_index(make_store_url: Callable[[str], str]) -> None:
    import touched
    from filling import Backlog

    url = make_store_url("postgresql")
    with closing(filled(url, Backlog(1_000))) as driver:
        ids = [job.id for job in driver.find(JobFilter(), limit=1_000).jobs][::100]  # each on a page of its own
        driver.close()
        meter = touched.PagesOfPostgresql(driver, url)
        assert meter.of(lambda: driver.now()) == Counter()
        one, ten = (meter.of(lambda part=ids[:n]: driver.get(part)) for n in (1, 10))  # type: ignore[misc]
        assert (one["jobs"], ten["jobs"]) == (1, 10)
        assert one["jobs_pkey"] >= 1  # the planner's looks at the empty indexes are counted too
        assert one["pages"] == sum(one.values()) - one["pages"] < 20


def test_sqlite_counts_pages_and_steps(make_store_url: Callable[[str], str]) -> None:
    import touched
    from filling import Backlog

    with closing(filled(make_store_url("sqlite"), Backlog(20_000))) as driver:
        driver.close()
        meter = touched.PagesOfSqlite(driver)
        some = driver.find(JobFilter(), limit=1).jobs[0].id
        one = meter.of(lambda: driver.get([some]))
        again = meter.of(lambda: driver.get([some]))
        with driver._connections.engine.connect() as conn:
            whole = meter.of(lambda: conn.execute(text("SELECT sum(length(data)) FROM jobs")).all())
            pages = conn.exec_driver_sql("PRAGMA page_count").scalar_one()
        assert one == again
        assert one["steps"] < 200 < 20_000 <= whole["steps"]
        if touched.IO.exists():
            assert 3 <= one["pages"] <= 10
            assert pages // 3 < whole["pages"] <= pages


def test_valkey_counts_the_commands_of_its_scripts(tmp_path: Path) -> None:
    import stores
    import touched
    from filling import Backlog, fill

    with stores.running(["valkey"], is_durable=False) as urls:
        driver = create_driver(urls["valkey"])
        driver.setup()
        fill(driver, Backlog(50))
        driver.register(WORKER)
        found = touched.CommandsOfValkey(urls["valkey"]).of(lambda: driver.claim("w", ["default"], slots=5, limit=5))
        driver.close()
    assert found["commands"] == sum(found.values()) - found["commands"]
    assert found["evalsha"] + found["eval"] + found["fcall"] >= 1
    assert found["commands"] > 3


# --------------------------------------------------------------------------------------------------------- the guard


def test_sqlite_is_flat_and_the_command_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import scale

    out = tmp_path / "out.json"
    words = ["--stores", "sqlite", "--shapes", "pending,delayed,queues", "--jobs", "20000"]
    assert scale.main([*words, "--json", str(out)]) == 0
    found = json.loads(out.read_text())["findings"]
    steps = [one for one in found if one["what"] == "steps"]
    assert len(steps) == 3 * 4
    assert all(one["before"] == one["after"] > 1_000 for one in steps)
    assert "nothing is above its bound" in capsys.readouterr().out


def test_a_store_that_lost_its_index_is_seen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import scale
    import shapes

    usual = shapes.fill

    def without_its_index(driver: SQLAlchemyDriver, backlog: Backlog) -> None:
        usual(driver, backlog)
        with driver.engine.begin() as conn:
            conn.exec_driver_sql("DROP INDEX jobs_ready")

    monkeypatch.setattr(shapes, "fill", without_its_index)
    assert scale.main(["--stores", "sqlite", "--shapes", "pending", "--jobs", "5000"]) == 1
    assert "sqlite, pending: claim touches" in capsys.readouterr().out


def test_a_worker_prunes_in_the_one_kind_of_window_and_not_in_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import retention

    monkeypatch.setattr(retention, "JOBS", 2_000)
    found = {(one.verb, one.what): one for one in retention.measured("sqlite", "", tmp_path, finished=60_000, pairs=1)}
    pruned, rate = found["worker", "pruned/job"], found["worker", "jobs/s"]
    assert pruned.before == 0 < pruned.after
    assert rate.before > 0 < rate.after
    counted = [one for key, one in found.items() if key[0] != "worker"]
    assert {(one.verb, one.complaint) for one in counted} == {("prune of 1,000", ""), ("settle and claim", "")}


def test_a_turn_is_counted_beside_an_open_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import held
    import scale

    monkeypatch.setattr(held, "TURNS", 30)
    out = tmp_path / "out.json"
    assert scale.main(["--stores", "postgresql", "--shapes", "held", "--json", str(out)]) == 0
    found = json.loads(out.read_text())["findings"]
    assert [one["verb"] for one in found] == ["look and claim", "settle", "claim", "settle and claim"]
    assert all(one["after"] > 100 for one in found)
    assert [one["verb"] for one in found if one["bound"] is None] == list(held.TOLD)


def test_pages_may_grow_by_a_level_and_not_by_more() -> None:
    import bounds

    def complaint(store: str, shape: str, verb: str, pages: tuple[int, int]) -> str:
        small, large = ({verb: Counter({"pages": count * bounds.ROUNDS})} for count in pages)
        (found,) = bounds.compared(store, shape, (1_000, 1_000_000), (small, large))
        return found.complaint

    assert complaint("postgresql", "pending", "claim", (1_000, 1_300)) == ""
    assert "1,301 pages at 1,000,000, 1,000 at 1,000; more than 1,300 is TOO MUCH" in complaint(
        "postgresql", "pending", "claim", (1_000, 1_301)
    )
    assert complaint("sqlite", "pending", "claim", (20, 30)) == ""  # five trees, two levels
    assert complaint("sqlite", "pending", "claim", (20, 31))
    assert complaint("sqlite", "queues", "claim", (20, 530)) == ""  # 2.5 pages for each lane beside that
    assert complaint("sqlite", "queues", "settle", (20, 31))
    assert complaint("postgresql", "queues", "claim", (1_000, 1_700)) == ""  # a descent more for each lane
    assert complaint("postgresql", "queues", "settle", (1_000, 1_301))


# ----------------------------------------------------------------------------------------------- beside it, in `bench`


def test_depth_is_measured_for_both_and_compared(tmp_path: Path) -> None:
    import run

    out = tmp_path / "out.json"
    words = ["--stores", "sqlite", "--workloads", "depth", "--depths", "200,2000", "--jobs", "300", "--rounds", "1"]
    assert run.main([*words, "--json", str(out)]) == 0
    told = json.loads(out.read_text())
    assert [(one["workload"], one["limit"]) for one in told["ratios"]] == [("depth", "raw")]
    assert len(told["measurements"]) == 2
    for one in told["measurements"]:
        assert one["value"] == pytest.approx(one["details"]["deep"] / one["details"]["shallow"])
        assert one["details"]["jobs"] == 300


def test_an_open_transaction_is_held_while_jobs_are_drained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import backlogs
    import run

    monkeypatch.setattr(backlogs, "RATE_MAX", 3_000)
    out = tmp_path / "out.json"
    words = ["--stores", "postgresql", "--workloads", "opentx", "--hold", "1", "--rounds", "1", "--no-fsync"]
    assert run.main([*words, "--json", str(out)]) == 0
    told = json.loads(out.read_text())
    assert [(one["workload"], one["limit"]) for one in told["ratios"]] == [("opentx", "raw")]
    assert all(one["details"]["jobs"] > 50 for one in told["measurements"])
