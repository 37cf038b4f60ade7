"""The driver by a stranger, as proof: small, from public parts only, and as good as ours in a user's hands.

What it does to jobs is tested by the conformance kit, as for any driver: protojobs_lmdb/tests/test_conformance.py.
"""

from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
import tokenize
import tomllib
from datetime import timedelta
from pathlib import Path

import pytest
from protojobs_lmdb import LmdbDriver, file
from protojobs_lmdb.rows import Step, key_of

from architecture import rules
from protojobs import JobQueue, create_driver, job
from protojobs.clock import SYSTEM_CLOCK
from protojobs.errors import ContractBroken, OptionInvalid, SchemaOutdated, StoreUnavailable
from protojobs.port.records import JobFilter, Pruned
from protojobs.port.schedules import FireStatus
from protojobs.testing.conformance.plans import MINUTE, firing_of, new_schedule, outcomes, store_schedule
from protojobs.testing.conformance.steps import fresh_ids, new_job

SOURCES = sorted((Path(__file__).parent / "protojobs_lmdb/src").rglob("*.py"))
CORE = {path.stem for path in (rules.ROOT / "core/src/protojobs").iterdir() if path.suffix == ".py" or path.is_dir()}
DOCUMENTED = rules.ROOT / "tests/end_to_end/documented_api.py"
CODE_LINES_MAX = 420  # 33 verbs, transfer included; the memory driver has 900 of them
SCHEDULES_CODE_LINES_MAX = 130  # the other six, in a module of their own


@job(name="add", queue="math")
def add(a: int, b: int) -> int:
    return a + b


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"lmdb:///{tmp_path / 'jobs.lmdb'}"


class TestItIsSmallAndUsesWhatIsPublic:
    def test_its_code_fits_the_budget(self) -> None:
        lengths = {path.name: code_lines(path.read_text()) for path in SOURCES}
        assert lengths.pop("schedules.py") <= SCHEDULES_CODE_LINES_MAX
        assert sum(lengths.values()) <= CODE_LINES_MAX, lengths

    def test_what_counts_as_a_line_of_code(self) -> None:
        assert code_lines('"""Doc."""\n\n# why\nx = f(\n    1,\n)\n\n\ndef f(y):\n    """Doc."""\n    return y\n') == 5

    @pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
    def test_it_imports_the_port_and_four_modules_of_core_and_nothing_else(self, path: Path) -> None:
        source = path.read_text()
        assert rules.breaches_of_port(source, rules.DRIVER_MAY_USE, CORE) == []
        assert modules_of_core(source) <= rules.DRIVER_MAY_USE  # no name of the root either

    def test_the_port_and_four_modules_are_all_that_a_driver_may_use(self) -> None:
        assert rules.DRIVER_MAY_USE == {"port", "errors", "clock", "entropy", "stopping"}

    @pytest.mark.parametrize("planted", ["import protojobs", "from protojobs import job", "import protojobs.queue"])
    def test_a_planted_import_is_found(self, planted: str) -> None:
        assert not modules_of_core(planted) <= rules.DRIVER_MAY_USE

    def test_whatever_it_imports_is_a_dependency(self) -> None:
        named = tomllib.loads((SOURCES[0].parents[2] / "pyproject.toml").read_text())["project"]["dependencies"]
        trees = [ast.parse(path.read_text()) for path in SOURCES]
        nodes = [node for tree in trees for node in ast.walk(tree)]
        used = {node.module.split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
        used |= {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        others = used - sys.stdlib_module_names - {"protojobs_lmdb"}
        assert others == {dependency.split(">")[0] for dependency in named}

    @pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
    def test_it_keeps_our_own_rules(self, path: Path) -> None:
        source = path.read_text()
        assert rules.breaches_of_determinism(source, rules.CLOCK | rules.CHANCE | rules.SLEEP) == []
        assert rules.imports_inside_functions(source) == []
        assert rules.docstring_of(source)


class TestInAUsersHands:
    def test_the_documented_program_runs_unchanged(self, url: str, tmp_path: Path) -> None:
        ran = subprocess.run(
            [sys.executable, str(DOCUMENTED)],
            env={**os.environ, "PROTOJOBS_URL": url},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert ran.stdout.endswith("all promises hold\n")

    def test_create_driver_finds_it_by_its_scheme_and_opens_nothing(self, url: str, tmp_path: Path) -> None:
        driver = create_driver(url)
        assert isinstance(driver, LmdbDriver)
        assert list(tmp_path.iterdir()) == []

    def test_a_relative_path_is_meant_from_where_one_is(self, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.chdir(tmp_path)
        create_driver("lmdb:///here.lmdb").setup()
        assert (tmp_path / "here.lmdb").exists()

    @pytest.mark.parametrize("wrong", ["lmdb://", "lmdb://host/path", "lmdb:jobs", "sqlite:///jobs.db"])
    def test_a_url_that_names_no_file_is_refused(self, wrong: str) -> None:
        with pytest.raises(OptionInvalid):
            LmdbDriver(wrong)

    def test_jobs_wait_for_the_next_process(self, url: str) -> None:
        driver = create_driver(url)
        driver.setup()
        JobQueue(driver).push(add.bind(1, 2))
        driver.close()
        program = (
            "import os, sys; from protojobs import create_driver; print(create_driver(sys.argv[1]).stats().pending)"
        )
        assert subprocess.check_output([sys.executable, "-c", program, url], text=True, timeout=30) == "1\n"


class TestPruning:
    def test_a_retention_below_the_resend_window_looks_at_no_job_of_the_last_hour(self, url: str, monkeypatch) -> None:
        driver, looks = LmdbDriver(url), []
        driver.setup()
        driver.enqueue([new_job() for _ in range(100)])
        driver.cancel([job.id for job in driver.find(JobFilter(), limit=100).jobs])
        monkeypatch.setattr(Step, "row", lambda step, job_id, row=Step.row: looks.append(job_id) or row(step, job_id))
        queue = JobQueue(LmdbDriver(url, time_offset=1_200), {"completed_job_retention": 0})
        assert (queue.prune(), looks) == (Pruned(), [])
        assert queue.prune(completed_older_than=600).cancelled == 100 <= len(looks)


class TestTrouble:
    def test_a_file_that_is_not_set_up_says_what_to_run(self, url: str) -> None:
        with pytest.raises(SchemaOutdated, match="protojobs migrate"):
            create_driver(url).stats()

    def test_a_file_of_another_kind_is_no_store(self, url: str, tmp_path: Path) -> None:
        (tmp_path / "jobs.lmdb").write_bytes(b"SQLite format 3\0" * 1_000)
        with pytest.raises(ContractBroken):
            create_driver(url).stats()

    def test_a_full_file_takes_nothing_in_part_and_works_again_after_a_clear(self, url: str) -> None:
        driver = LmdbDriver(url, map_mb=1)
        driver.setup()
        batch = [new_job(data='"' + "x" * 20_000 + '"') for _ in range(10)]
        driver.enqueue(batch)
        with pytest.raises(StoreUnavailable, match="full"):
            driver.enqueue([new_job(id=job_id, data='"' + "x" * 20_000 + '"') for job_id in fresh_ids(100)])
        assert driver.stats().pending == 10
        assert driver.clear("q").pending == 10
        assert len(driver.enqueue(batch)) == 10

    def test_a_frozen_writer_is_not_waited_for_without_end(self, url: str, tmp_path: Path, monkeypatch) -> None:
        driver = LmdbDriver(url)
        driver.setup()
        monkeypatch.setattr(file, "PATIENCE_S", 0.2)
        program = (
            "import fcntl, sys; file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_EX); print(1, flush=True);"
            "sys.stdin.read()"
        )
        path = str(tmp_path / "jobs.lmdb")
        with subprocess.Popen(
            [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as other:
            assert other.stdout is not None
            other.stdout.readline()
            with pytest.raises(StoreUnavailable):
                driver.enqueue([new_job()])
            assert driver.stats().total == 0  # who only looks need not wait
            other.communicate(timeout=30)
        assert len(driver.enqueue([new_job()])) == 1


class TestTime:
    def test_it_does_not_run_backwards_when_the_clock_is_set_back(self, url: str, monkeypatch) -> None:
        driver = LmdbDriver(url)
        driver.setup()
        driver.enqueue([new_job()])
        before = driver.now()
        monkeypatch.setattr(file, "SYSTEM_CLOCK", SetBack())
        assert before - timedelta(seconds=10) < driver.now()
        assert LmdbDriver(url, time_offset=60).now() > before


class SetBack:
    """This machine's clock, an hour slow."""

    monotonic = staticmethod(SYSTEM_CLOCK.monotonic)
    sleep = staticmethod(SYSTEM_CLOCK.sleep)

    def now(self):
        return SYSTEM_CLOCK.now() - timedelta(hours=1)


class TestForks:
    def test_a_child_opens_the_file_anew_and_the_parent_goes_on(self, url: str) -> None:
        driver = create_driver(url)
        driver.setup()
        driver.enqueue([new_job()])
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                driver.enqueue([new_job()])
                code = 0 if driver.stats().pending == 2 else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        driver.enqueue([new_job()])
        assert driver.stats().pending == 3


def modules_of_core(source: str) -> set[str]:
    """The modules, or names of the root, that are imported from core; "" for the root itself."""
    names = [name for _, name in rules.imported(ast.parse(source))]
    return {f"{name}.".split(".")[1] for name in names if name.split(".")[0] == "protojobs"}


def code_lines(source: str) -> int:
    """Lines that hold code: neither blank, nor comment, nor docstring."""
    prose = {
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None
        for line in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
    }
    silent = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {line for token in tokens if token.type not in silent for line in range(token.start[0], token.end[0] + 1)}
    return len(lines - prose)


def test_a_schedule_that_cannot_be_read_hides_no_other_and_can_be_removed(url: str) -> None:
    driver = LmdbDriver(url)
    driver.setup()
    odd, other = [store_schedule(driver, new_schedule(name, due=driver.now() - MINUTE)) for name in ("odd", "other")]
    with driver.step(write=True) as step:
        step.txn.put(key_of("schedule", "odd"), b"\xc1garbage")
    for page in (driver.list_schedules(), driver.get_schedules(["odd", "other"]), driver.due_schedules(10)):
        assert ([one.id for one in page.unreadable], page.schedules) == (["odd"], (other,))
    assert outcomes(driver, firing_of(odd), firing_of(other)) == [FireStatus.LOST, FireStatus.FIRED]
    assert driver.save_schedule(odd, version=1) is False
    assert driver.remove_schedule("odd") is True
    assert driver.list_schedules().unreadable == driver.due_schedules(10).unreadable == ()
