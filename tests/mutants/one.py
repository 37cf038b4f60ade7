"""One mutant against the kit, in a process of its own: `python one.py STORE NAME`; NAME '' is none.

Says as JSON how many tests ran, and which one failed first. On another store than memory only the tests of the concerns
run in which there are mutants of it: the drivers' own tests run the rest, without a fault.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import pytest  # noqa: E402  after the path

from mutants.plant import mutated, plant, sources  # noqa: E402
from mutants.planted import MUTANTS  # noqa: E402


class FirstFailure:
    """A pytest plugin: the tests that should see the fault come first; the first failure is kept."""

    def __init__(self, first: Sequence[str], only: frozenset[str]) -> None:
        self.first = [*first, "model"]
        self.only = only
        self.ids: dict[str, str] = {}
        self.ran = 0
        self.caught_by = ""
        self.how = ""
        self.broken = ""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        from protojobs.testing.conformance.levels import contract_of

        def place(item: pytest.Item) -> int:
            concern = self.ids[item.nodeid].partition(".")[0]
            return self.first.index(concern) if concern in self.first[:-1] else len(self.first) + (concern == "model")

        for item in items:
            contract = contract_of(item.cls, item.originalname)
            self.ids[item.nodeid] = contract.id + item.name.removeprefix(item.originalname)
        items.sort(key=place)
        if self.only:
            items[:] = [item for item in items if self.ids[item.nodeid].partition(".")[0] in self.only]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.ran += report.when == "call"
        if report.failed and not self.caught_by:
            self.caught_by = self.ids[report.nodeid]
            self.how = report.longreprtext[-400:]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.broken = report.longreprtext[-2000:]


def main(store: str, name: str) -> None:
    chosen = next((mutant for mutant in MUTANTS if mutant.name == name), None)
    concerns = (concern for mutant in MUTANTS if mutant.store == store for concern in mutant.first)
    plugin = FirstFailure(chosen.first if chosen else (), frozenset(concerns if store != "memory" else ()))
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ["PROTOJOBS_MUTANT_STORE"] = store
    with tempfile.TemporaryDirectory(prefix="protojobs-mutant-") as folder:
        plant(mutated(chosen) if chosen else sources(store), Path(folder))
        sys.path.insert(0, folder)
        settings = Path(folder, "pytest.ini")
        settings.write_text("[pytest]\n")
        options = ["-x", "-c", str(settings), "--rootdir", folder, "--noconftest", "-p", "no:cacheprovider"]
        options += ["-p", "no:terminal", "--import-mode=importlib", "-W", "ignore"]
        pytest.main([*options, str(HERE / "kit_on_a_mutant.py")], plugins=[plugin])
    print(json.dumps({"ran": plugin.ran, "caught_by": plugin.caught_by, "how": plugin.how, "broken": plugin.broken}))


if __name__ == "__main__":
    main(*sys.argv[1:])
