"""Each rule holds in the sources, and each catches the breach planted for it."""

from __future__ import annotations

import statistics
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
SQL_JOINING = "drivers/sqlalchemy/src/protojobs_sqlalchemy/joining.py"
SQL_DIAGNOSING = "drivers/sqlalchemy/src/protojobs_sqlalchemy/diagnosing.py"
SQL_UPSERTS = "drivers/sqlalchemy/src/protojobs_sqlalchemy/upserts.py"
SQL_TYPES = "drivers/sqlalchemy/src/protojobs_sqlalchemy/types.py"
SQL_LIVE = "drivers/sqlalchemy/src/protojobs_sqlalchemy/live.py"
PROMETHEUS = "contrib/prometheus/src/protojobs_prometheus/"
OPENTELEMETRY = "contrib/opentelemetry/src/protojobs_opentelemetry/"
LATE_IMPORTS: dict[tuple[str, str], str] = {
    ("core/src/protojobs/_afterwards.py", "asyncio"): "for a `failed` that is async",
    ("core/src/protojobs/_offload.py", "asyncio"): "where a coroutine runs it is loaded",
    ("core/src/protojobs/_offload.py", "concurrent.futures"): "for coroutines only",
    ("core/src/protojobs/__init__.py", "protojobs.hooks"): "pluggy is for plugins",
    ("core/src/protojobs/__init__.py", "protojobs.scheduler"): "cronsim and hashlib are for those who schedule",
    ("core/src/protojobs/definitions.py", "protojobs._timetable"): "cronsim is for jobs with a schedule",
    ("core/src/protojobs/queue.py", "protojobs.hooks"): "pluggy is a sixth of the import time",
    ("core/src/protojobs/queue.py", "protojobs._plugins"): "pluggy again",
    ("core/src/protojobs/config.py", "tomllib"): "many programs have no file to read",
    ("core/src/protojobs/_registry.py", "importlib.metadata"): "a quarter of the import time, for plugins",
    ("core/src/protojobs/urls.py", "importlib.metadata"): "a quarter of the import time, for drivers",
    ("core/src/protojobs/_execution.py", "asyncio"): "where it runs a loop has loaded it; plain jobs do without",
    ("core/src/protojobs/cli/output.py", "protojobs.cli.terminal"): "rich is for terminals; a pipe does without",
    ("core/src/protojobs/queue.py", "protojobs._working"): "a process that only pushes never loads the worker",
    ("core/src/protojobs/codec.py", "msgspec"): "msgspec.inspect costs as much as the rest of msgspec",
    ("core/src/protojobs/_executors/choice.py", "protojobs._executors.loop"): "only async jobs pay for asyncio",
    ("core/src/protojobs/_executors/choice.py", "protojobs._executors.processes"): "only jobs in children pay for it",
    ("core/src/protojobs/_executors/child.py", "asyncio"): "only async suspects pay for it",
    ("core/src/protojobs/_executors/child.py", "ctypes"): "for Linux only",
    ("core/src/protojobs/cli/conformance.py", "protojobs.cli.conformance_progress"): "rich is for terminals",
    ("core/src/protojobs/cli/top.py", "protojobs.cli.screen"): "rich is for terminals",
    ("core/src/protojobs/cli/reloading.py", "watchfiles"): "an optional dependency",
    ("contrib/dashboard/src/protojobs_dashboard/mounting.py", "a2wsgi"): "an optional dependency",
    (PROMETHEUS + "asked.py", "protojobs_prometheus.counting"): "prometheus_client is for those who ask for metrics",
    (OPENTELEMETRY + "asked.py", "protojobs_opentelemetry.tracing"): "OpenTelemetry is for those who ask for traces",
    (OPENTELEMETRY + "__init__.py", "protojobs_opentelemetry.tracing"): "OpenTelemetry is for those who ask for traces",
    (SQL_DRIVER, "protojobs_sqlalchemy.migrating"): "Alembic is for setup and migrate only",
    (SQL_DIAGNOSING, "protojobs_sqlalchemy.migrating"): "Alembic is for setup, migrate and the doctor only",
    (SQL_DRIVER, "protojobs_sqlalchemy.sqlite"): "a program loads the dialect of its own store only",
    (SQL_DRIVER, "protojobs_sqlalchemy.postgresql"): "its DBAPI is an extra",
    (SQL_DRIVER, "protojobs_sqlalchemy.mariadb"): "its DBAPI is an extra",
    (SQL_DIAGNOSING, "protojobs_sqlalchemy"): "as above",
    (SQL_UPSERTS, "sqlalchemy.dialects"): "as above: each of SQLAlchemy's takes megabytes",
    (SQL_TYPES, "sqlalchemy.dialects"): "as above",
    (SQL_JOINING, "protojobs_sqlalchemy.transactions"): "loads the ORM, which a worker without sessions does without",
    (SQL_JOINING, "protojobs_sqlalchemy"): "as above",
    (SQL_JOINING, "sqlalchemy.orm"): "as above",
    ("drivers/sqlalchemy/src/protojobs_sqlalchemy/__init__.py", "protojobs_sqlalchemy"): "as above",
    (SQL_LIVE, "protojobs_sqlalchemy.mariadb_live"): "its DBAPI is an extra",
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
            "import protojobs._lease",
            "from protojobs import _lease",
            "from protojobs._lease import Lease",
            "from protojobs.worker import Worker",
            "from protojobs import worker",
            "from protojobs.records import _seal",
            "def f():\n    import protojobs.cli.main",
        ],
    )
    def test_a_planted_breach_is_found(self, planted: str) -> None:
        assert rules.breaches_of_port(planted, rules.DRIVER_MAY_USE, {"worker", "cli", "records", "_lease"})

    @pytest.mark.parametrize(
        "innocent",
        [
            "import protojobs",
            "from protojobs import Job",
            "from protojobs.records import NewJob",
            "from . import _sql",
            "import protojobs_redis",
        ],
    )
    def test_what_is_allowed_passes(self, innocent: str) -> None:
        assert rules.breaches_of_port(innocent, rules.DRIVER_MAY_USE, {"worker", "records"}) == []


class TestContributionsUseThePublicFaceOnly:
    def test_in_their_sources_and_tests(self) -> None:
        assert found_in(rules.sources("contrib/*/src"), rules.breaches_of_public_face) == []

    @pytest.mark.parametrize(
        "planted", ["from protojobs import _registry", "import protojobs.cli", "import protojobs.x._y"]
    )
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


class TestModulesAreShort:
    def test_no_module_or_function_is_over_budget_without_saying_why(self) -> None:
        assert found_in(rules.sources(*PRODUCTION), rules.breaches_of_size) == []

    def test_the_median_module_is_short(self) -> None:
        lengths = [text.count("\n") for f in rules.sources(*PRODUCTION) if (text := f.read_text()).strip()]
        assert statistics.median(lengths) <= rules.MODULE_LINES_MEDIAN_MAX

    def test_a_planted_module_over_budget_is_found(self) -> None:
        assert rules.breaches_of_size("x = 1\n" * (rules.MODULE_LINES_MAX + 1))
        assert not rules.breaches_of_size("x = 1\n" * rules.MODULE_LINES_MAX)

    def test_a_planted_function_over_budget_is_found(self) -> None:
        assert rules.breaches_of_size("class A:\n    def f(self):\n" + "        x = 1\n" * rules.FUNCTION_LINES_MAX)
        assert not rules.breaches_of_size("async def f():\n" + "    x = 1\n" * (rules.FUNCTION_LINES_MAX - 1))

    def test_a_module_that_says_why_passes(self) -> None:
        assert not rules.breaches_of_size(
            '"""Tables. Over budget because a table is data."""\n' + "x = 1\n" * (rules.MODULE_LINES_MAX + 1)
        )


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
