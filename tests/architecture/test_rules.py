"""Each rule holds in the sources, and each catches the breach planted for it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from architecture import rules

PRODUCTION = ("core/src", "drivers/*/src", "contrib/*/src")
CORE_MODULES = {p.stem for p in (rules.ROOT / "core/src/protojobs").iterdir() if p.suffix == ".py" or p.is_dir()}

# The only modules that ask the time, or for chance.
MAY_ASK = {"core/src/protojobs/clock.py", "core/src/protojobs/entropy.py"}

# Imports inside functions: (module, what is imported) -> why. One that is no longer there is a failure as well.
SQL_DRIVER = "drivers/sqlalchemy/src/protojobs_sqlalchemy/driver.py"
SQL_JOINING = "drivers/sqlalchemy/src/protojobs_sqlalchemy/sessions/joining.py"
SQL_OPENING = "drivers/sqlalchemy/src/protojobs_sqlalchemy/opening.py"
SQL_TESTING = "drivers/sqlalchemy/src/protojobs_sqlalchemy/testing/"
SQL_DATABASE = "drivers/sqlalchemy/src/protojobs_sqlalchemy/{}/dialect.py"
SQL_TYPES = "drivers/sqlalchemy/src/protojobs_sqlalchemy/tables/types.py"
PROMETHEUS = "contrib/prometheus/src/protojobs_prometheus/"
DJANGO_JOINING = "contrib/django/src/protojobs_django/joining.py"
SENTRY = "contrib/sentry/src/protojobs_sentry/"
OPENTELEMETRY = "contrib/opentelemetry/src/protojobs_opentelemetry/"
LATE_IMPORTS: dict[tuple[str, str], str] = {
    ("core/src/protojobs/worker/runs/failed_call.py", "asyncio"): "for a `failed` that is async",
    ("core/src/protojobs/queue/coroutines.py", "asyncio"): "where a coroutine runs it is loaded",
    ("core/src/protojobs/queue/coroutines.py", "concurrent.futures"): "for coroutines only",
    ("core/src/protojobs/__init__.py", "importlib"): "pluggy, cronsim and the worker are loaded on first use",
    ("core/src/protojobs/entropy.py", "hashlib"): "for schedules and edited jobs only",
    ("core/src/protojobs/jobs/cron_option.py", "protojobs.timetable.cron"): "cronsim is for jobs with a schedule",
    ("core/src/protojobs/queue/queue.py", "protojobs.hooks.hooks"): "pluggy is a sixth of the import time",
    ("core/src/protojobs/queue/queue.py", "protojobs.runtime"): "its types are pluggy's",
    ("core/src/protojobs/queue/queue.py", "protojobs.queue.waiting"): "a process that only pushes never waits",
    ("core/src/protojobs/queue/waiting.py", "asyncio"): "where a coroutine runs it is loaded",
    ("core/src/protojobs/queue/queue.py", "protojobs.worker.lease.between_calls"): "for processes that work",
    ("core/src/protojobs/queue/queue.py", "protojobs.hooks.installed_plugins"): "pluggy again",
    ("core/src/protojobs/config.py", "tomllib"): "many programs have no file to read",
    ("core/src/protojobs/port/installed_drivers.py", "importlib.metadata"): "a quarter of the import time, for plugins",
    ("core/src/protojobs/port/urls.py", "importlib.metadata"): "a quarter of the import time, for drivers",
    ("core/src/protojobs/worker/runs/run.py", "asyncio"): "where it runs a loop has loaded it; plain jobs do without",
    ("core/src/protojobs/worker/runs/run.py", "protojobs.worker.runs.soft_timeout"): "asyncio, for async jobs only",
    ("core/src/protojobs/cli/showing/tables.py", "rich.cells"): "rich is for terminals; a pipe does without",
    ("core/src/protojobs/cli/showing/tables.py", "rich.console"): "as above",
    ("core/src/protojobs/cli/showing/tables.py", "rich.table"): "as above",
    ("core/src/protojobs/cli/showing/tables.py", "rich.text"): "as above",
    (
        "core/src/protojobs/queue/queue.py",
        "protojobs.worker.launch",
    ): "a process that only pushes never loads the worker",
    ("core/src/protojobs/jobs/codec.py", "protojobs.jobs"): "msgspec.inspect doubles msgspec",
    (
        "core/src/protojobs/worker/runs/placing.py",
        "protojobs.worker.runs.event_loop",
    ): "only async jobs pay for asyncio",
    (
        "core/src/protojobs/worker/runs/placing.py",
        "protojobs.worker.runs.children.pool",
    ): "only jobs in children pay for it",
    ("core/src/protojobs/queue/queue.py", "protojobs.worker.kept_resources"): "for processes that work",
    ("core/src/protojobs/worker/kept_resources.py", "protojobs.worker.runs.jobs_loop"): "asyncio, for resources only",
    ("core/src/protojobs/worker/kept_resources.py", "protojobs.worker.runs.open_resources"): "as above",
    (
        "core/src/protojobs/worker/runs/children/child_resources.py",
        "asyncio",
    ): "for async suspects and resources only",
    (
        "core/src/protojobs/worker/runs/children/child_resources.py",
        "protojobs.worker.runs.open_resources",
    ): "as above",
    ("core/src/protojobs/worker/runs/children/child.py", "ctypes"): "for Linux only",
    ("core/src/protojobs/cli/development/code_changes.py", "watchfiles"): "an optional dependency",
    ("contrib/dashboard/src/protojobs_dashboard/mounting.py", "a2wsgi"): "an optional dependency",
    (PROMETHEUS + "asked.py", "protojobs_prometheus.counting"): "prometheus_client is for those who ask for metrics",
    (OPENTELEMETRY + "asked.py", "protojobs_opentelemetry.tracing"): "OpenTelemetry is for those who ask for traces",
    (OPENTELEMETRY + "__init__.py", "protojobs_opentelemetry.tracing"): "OpenTelemetry is for those who ask for traces",
    (SENTRY + "asked.py", "protojobs_sentry.reporting"): "the SDK is for those who ask for it",
    (SENTRY + "__init__.py", "protojobs_sentry.reporting"): "the SDK is for those who ask for it",
    (SQL_DRIVER, "protojobs_sqlalchemy.migrations.migrating"): "Alembic is for setup, migrate and the doctor only",
    (SQL_DRIVER, "protojobs_sqlalchemy.tables.models"): "the ORM takes six megabytes, and only some have sessions",
    (SQL_OPENING, "protojobs_sqlalchemy.sqlite.dialect"): "a program loads the dialect of its own store only",
    (SQL_OPENING, "protojobs_sqlalchemy.postgresql.dialect"): "its DBAPI is an extra",
    (SQL_OPENING, "protojobs_sqlalchemy.mariadb.dialect"): "its DBAPI is an extra",
    (SQL_TESTING + "inside.py", "protojobs_sqlalchemy.testing.sqlite"): "as in opening.py",
    (SQL_TESTING + "inside.py", "protojobs_sqlalchemy.testing.postgresql"): "its DBAPI is an extra",
    (SQL_TESTING + "inside.py", "protojobs_sqlalchemy.testing.mariadb"): "its DBAPI is an extra",
    (SQL_TESTING + "sharing.py", "protojobs_sqlalchemy.testing"): "postgresql, whose DBAPI is an extra",
    (SQL_DATABASE.format("sqlite"), "protojobs_sqlalchemy.sqlite"): "its looks are the doctor's alone",
    (SQL_DATABASE.format("postgresql"), "protojobs_sqlalchemy.postgresql"): "as above",
    (SQL_DATABASE.format("mariadb"), "protojobs_sqlalchemy.mariadb"): "as above",
    (SQL_TYPES, "sqlalchemy.dialects"): "each of SQLAlchemy's takes megabytes",
    (
        SQL_JOINING,
        "protojobs_sqlalchemy.sessions.transactions",
    ): "loads the ORM, which a worker without sessions does without",
    (SQL_JOINING, "protojobs_sqlalchemy.sessions"): "as above",
    (SQL_JOINING, "sqlalchemy.orm"): "as above",
    ("drivers/sqlalchemy/src/protojobs_sqlalchemy/__init__.py", "protojobs_sqlalchemy.tables"): "as above",
    (DJANGO_JOINING, "psycopg.types.datetime"): "for sites on PostgreSQL only",
}


def found_in(files: list[Path], rule) -> list[str]:
    return [f"{rules.shown(file)}: {breach}" for file in files for breach in rule(file.read_text())]


class TestDriversUseThePortOnly:
    def test_in_their_sources(self) -> None:
        allowed = rules.DRIVER_MAY_USE
        rule = lambda source: rules.breaches_of_port(source, allowed, CORE_MODULES)  # noqa: E731
        assert found_in(rules.sources("drivers/*/src"), rule) == []

    def test_in_their_tests_with_the_kit_beside_it(self) -> None:
        allowed = rules.DRIVER_MAY_USE | {"testing", "doctor"}
        rule = lambda source: rules.breaches_of_port(source, allowed, CORE_MODULES)  # noqa: E731
        assert found_in(rules.sources("drivers/*/tests"), rule) == []

    def test_every_allowed_module_exists(self) -> None:
        assert rules.DRIVER_MAY_USE - CORE_MODULES == set()

    @pytest.mark.parametrize(
        "planted",
        [
            "import protojobs.worker.lease.lease",
            "from protojobs import config",
            "from protojobs.worker.lease.lease import Lease",
            "from protojobs.worker.loop import Worker",
            "from protojobs import worker",
            "from protojobs.port.records import _seal",
            "def f():\n    import protojobs.cli.main",
        ],
    )
    def test_a_planted_breach_is_found(self, planted: str) -> None:
        assert rules.breaches_of_port(planted, rules.DRIVER_MAY_USE, {"worker", "cli", "port", "config"})

    @pytest.mark.parametrize(
        "innocent",
        [
            "import protojobs",
            "from protojobs import Job",
            "from protojobs.port.records import NewJob",
            "from . import _sql",
            "import protojobs_redis",
        ],
    )
    def test_what_is_allowed_passes(self, innocent: str) -> None:
        assert rules.breaches_of_port(innocent, rules.DRIVER_MAY_USE, {"worker", "port"}) == []


class TestContributionsUseThePublicFaceOnly:
    def test_in_their_sources_and_tests(self) -> None:
        assert found_in(rules.sources("contrib/*/src"), rules.breaches_of_public_face) == []

    @pytest.mark.parametrize("planted", ["from protojobs import _x", "import protojobs.cli", "import protojobs.x._y"])
    def test_a_planted_breach_is_found(self, planted: str) -> None:
        assert rules.breaches_of_public_face(planted)

    def test_what_is_allowed_passes(self) -> None:
        assert rules.breaches_of_public_face("from protojobs import Job\nfrom protojobs.events import JobFailed") == []


class TestOnlyClockAndEntropyAreNotDeterministic:
    # The examples are jobs as anyone would write them: they sleep and read the clock.
    FILES = [f for f in rules.sources("core/src", "drivers/*/src") if rules.shown(f) not in MAY_ASK]

    def test_nothing_else_asks_the_time_or_for_chance(self) -> None:
        rule = lambda source: rules.breaches_of_determinism(source, rules.CLOCK | rules.CHANCE)  # noqa: E731
        assert found_in(self.FILES, rule) == []

    def test_nothing_else_in_core_sleeps(self) -> None:
        files = [file for file in self.FILES if rules.shown(file).startswith("core/")]
        assert found_in(files, lambda source: rules.breaches_of_determinism(source, rules.SLEEP)) == []

    @pytest.mark.parametrize(
        "planted",
        [
            "import time\nnow = time.time()",
            "import time as t\nnow = t.monotonic()",
            "from time import monotonic",
            "from time import perf_counter as tick",
            "from time import *",
            "import time\nask = time.time_ns",
            "import datetime\ndatetime.datetime.now()",
            "import datetime as dt\ndt.datetime.now(dt.UTC)",
            "from datetime import datetime\ndatetime.utcnow()",
            "from datetime import date as d\nd.today()",
            "import random",
            "from random import choice",
            "import secrets",
            "import uuid\nuuid.uuid4()",
            "from uuid import uuid1",
            "import os\nos.urandom(8)",
            "def f():\n    from os import urandom",
        ],
    )
    def test_a_planted_breach_is_found(self, planted: str) -> None:
        assert rules.breaches_of_determinism(planted, rules.CLOCK | rules.CHANCE)

    @pytest.mark.parametrize("planted", ["import time\ntime.sleep(1)", "from time import sleep"])
    def test_a_planted_sleep_is_found(self, planted: str) -> None:
        assert rules.breaches_of_determinism(planted, rules.SLEEP)

    @pytest.mark.parametrize(
        "innocent",
        [
            "from datetime import datetime\ndatetime.fromisoformat('2030-01-31')",
            "from uuid import UUID\nUUID(int=1)",
            "import os\nos.getpid()",
            "def f(clock):\n    return clock.now()",
            "from protojobs import entropy\nentropy.random()",
        ],
    )
    def test_what_is_allowed_passes(self, innocent: str) -> None:
        assert rules.breaches_of_determinism(innocent, rules.CLOCK | rules.CHANCE | rules.SLEEP) == []


class TestImportsStandAtTheTop:
    def test_except_where_the_list_above_says_why(self) -> None:
        found = {
            (rules.shown(file), name)
            for file in rules.sources(*PRODUCTION)
            for _, name in rules.imports_inside_functions(file.read_text())
        }
        assert sorted(found - set(LATE_IMPORTS)) == []
        assert sorted(set(LATE_IMPORTS) - found) == [], "no longer there: take it off the list"

    def test_a_planted_breach_is_found(self) -> None:
        planted = "class A:\n    async def f(self):\n        from . import x\n        import rich.console\n"
        assert rules.imports_inside_functions(planted) == [(3, "."), (4, "rich.console")]

    def test_type_checking_imports_at_the_top_pass(self) -> None:
        assert rules.imports_inside_functions("if TYPE_CHECKING:\n    import rich\n") == []


class TestPyrightReadsEveryDistribution:
    def test_by_name_since_it_does_not_look_behind_a_wildcard(self) -> None:
        settings = tomllib.loads((rules.ROOT / "pyproject.toml").read_text())["tool"]["pyright"]
        folders = [*rules.ROOT.glob("core/src"), *rules.ROOT.glob("drivers/*/src"), *rules.ROOT.glob("contrib/*/src")]
        assert sorted(settings["include"]) == sorted(map(rules.shown, folders))


class TestEveryModuleSaysWhatItIsFor:
    def test_in_its_first_line(self) -> None:
        silent = [
            rules.shown(file)
            for file in rules.sources(*PRODUCTION)
            if file.read_text().strip() and not rules.docstring_of(file.read_text())
        ]
        assert silent == []
