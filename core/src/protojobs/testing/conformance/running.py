"""Runs the kit by pytest and hears of each test as it ends. Nothing of the caller's pytest settings gets in."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

import pytest
from msgspec.structs import replace

from protojobs import create_driver
from protojobs.clock import SYSTEM_CLOCK
from protojobs.port.driver import Store
from protojobs.port.urls import masked
from protojobs.testing.conformance import against
from protojobs.testing.conformance.against import STORE_URL
from protojobs.testing.conformance.levels import Contract, Level, contract_of
from protojobs.testing.conformance.report import Outcome, Report, Subject, TestReport, reported, skipped_as, unfinished
from protojobs.testing.conformance.steps import push
from protojobs.testing.emptying import empty

__all__ = ["run"]

DETAIL_LINES_MAX = 30
_RANKS = list(Level)


class Listener:
    """A pytest plugin: picks the tests of the level that was asked for, and tells each outcome once."""

    def __init__(
        self, url: str, asked: Level, begin: Callable[[int], None], tell: Callable[[TestReport], None]
    ) -> None:
        self.tests: list[TestReport] = []
        self.errors: list[str] = []
        self._url, self._asked = url, asked
        self._begin, self._tell = begin, tell
        self._now: dict[str, TestReport] = {}

    def pytest_configure(self, config: pytest.Config) -> None:
        """Say where the store is."""
        config.stash[STORE_URL] = self._url

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out what is above the level, and note what each test is called."""
        wanted: list[pytest.Item] = []
        for item in items:
            contract = _contract(item)
            if _RANKS.index(contract.level) <= _RANKS.index(self._asked):
                wanted.append(item)
                self._now[item.nodeid] = unfinished(contract, contract.id + _parameters(item))
        # pytest begins with the last base class; we tell the story in the order of suite.py, level by level.
        concerns = list(dict.fromkeys(_contract(item).concern for item in reversed(wanted)))
        items[:] = sorted(wanted, key=lambda item: _place(_contract(item), concerns))
        self._begin(len(items))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add a phase (setup, call, teardown) to its test; the last one ends it."""
        seen = self._now[report.nodeid]
        seen = replace(seen, seconds=round(seen.seconds + report.duration, 4))
        if report.failed:
            told = "\n".join(filter(None, [seen.detail, _told(report)]))
            seen = replace(seen, outcome=Outcome.FAILED, detail=told)
        elif report.skipped and seen.outcome is not Outcome.FAILED:
            reason = _reason(report)
            seen = replace(seen, outcome=skipped_as(reason), detail=reason)
        self._now[report.nodeid] = seen
        if report.when == "teardown":
            self.tests.append(seen)
            self._tell(seen)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A kit that cannot be read has no tests, and must not look as if it had passed."""
        if report.failed:
            self.errors.append(report.longreprtext)

    def pytest_internalerror(self, excrepr: object) -> None:
        """Keep what went wrong in pytest itself."""
        self.errors.append(str(excrepr))


def run(
    url: str, asked: Level, *, begin: Callable[[int], None], tell: Callable[[TestReport], None]
) -> tuple[Report, list[str]]:
    """Run all tests up to the level; answers the report, and errors that were no test's.

    `begin` hears how many tests there will be, `tell` of each that has ended.
    """
    listener = Listener(url, asked, begin, tell)
    subject = describe(url)
    if is_apart(url):
        error = (
            f"Two drivers made from {subject.store} see two stores. Name one that they share, like memory://scratch."
        )
        return reported(subject, asked, [], seconds=0.0, is_whole=False), [error]
    started = SYSTEM_CLOCK.monotonic()
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ.pop("PYTEST_ADDOPTS", None)
    with tempfile.TemporaryDirectory(prefix="protojobs-conformance-") as folder:
        settings = Path(folder, "pytest.ini")
        settings.write_text("[pytest]\npython_classes = TestTheStore\n")
        options = ["-c", str(settings), "--rootdir", folder, "--noconftest", "-p", "no:cacheprovider"]
        options += ["-p", "no:terminal", "--import-mode=importlib", "-W", "ignore"]
        code = pytest.main([*options, str(against.__file__)], plugins=[listener])
    is_whole = code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and not listener.errors
    seconds = SYSTEM_CLOCK.monotonic() - started
    return reported(subject, asked, listener.tests, seconds=seconds, is_whole=is_whole), listener.errors


def is_apart(url: str) -> bool:
    """Whether two drivers made from the URL do not see the same jobs: then no test could say anything."""
    one, other = create_driver(url), create_driver(url)
    try:
        empty(one)
        return not other.get(push(one))
    except Exception:  # noqa: BLE001  broken in another way: the tests will say in which
        return False
    finally:
        one.close()
        other.close()


def describe(url: str) -> Subject:
    """What is going to be tested."""
    driver = create_driver(url)
    return Subject(
        driver=type(driver).__name__,
        distribution=_distribution(driver),
        store=masked(url),
        capabilities=driver.capabilities,
        port_version=driver.port_version,
        protojobs=version("protojobs"),
        python=platform.python_version(),
        system=platform.platform(terse=True),
    )


def _distribution(driver: Store) -> str:
    package = type(driver).__module__.partition(".")[0]
    names = packages_distributions().get(package, [package.replace("_", "-")])
    try:
        return f"{names[0]} {version(names[0])}"
    except PackageNotFoundError:
        return ""


def _contract(item: pytest.Item) -> Contract:
    assert isinstance(item, pytest.Function)
    assert item.cls is not None
    contract = contract_of(item.cls, item.originalname)
    assert contract is not None, f"{item.nodeid} has no @concern"
    return contract


def _place(contract: Contract, concerns: list[str]) -> tuple[int, int]:
    return _RANKS.index(contract.level), concerns.index(contract.concern)


def _parameters(item: pytest.Item) -> str:
    _, bracket, rest = item.name.partition("[")
    return bracket + rest


def _reason(report: pytest.TestReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
    return text.removeprefix("Skipped: ")


def _told(report: pytest.TestReport) -> str:
    """The assertion with its values, and the line that it stands in."""
    lines = report.longreprtext.splitlines()
    marked = [line for line in lines if line.startswith((">", "E "))]
    return "\n".join((marked or lines)[-DETAIL_LINES_MAX:])
