"""The list of mutants is in order, and the runner lets none slip through. The mutants themselves: `dev.py mutants`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mutants import plant, planted, run
from mutants.mutant import STORES, Mutant, mutant
from mutants.planted import MUTANTS
from protojobs.testing.conformance.levels import contract_of
from protojobs.testing.conformance.suite import DriverConformance

CONCERNS = {
    contract.concern
    for name in dir(DriverConformance)
    if name.startswith("test_") and (contract := contract_of(DriverConformance, name))
}


def test_there_are_many_and_each_has_a_name() -> None:
    names = [each.name for each in MUTANTS]
    assert len(names) == len(set(names)) >= 25


@pytest.mark.parametrize("each", MUTANTS, ids=lambda each: each.name)
def test_every_mutant_still_applies_and_changes_something(each: Mutant) -> None:
    assert plant.mutated(each) != plant.sources(each.store)
    assert set(each.first) <= CONCERNS


@pytest.mark.parametrize("old", ["this stands nowhere", "self.state.lock"], ids=["nowhere", "in many places"])
def test_a_mutant_whose_piece_is_not_there_once_is_an_error(old: str) -> None:
    with pytest.raises(plant.Outgrown, match="outgrown"):
        plant.mutated(mutant("outgrown", "", (planted.DRIVER, old, "")))


def test_the_runner_refuses_an_outgrown_list(monkeypatch, capsys) -> None:
    monkeypatch.setattr(run, "MUTANTS", (mutant("outgrown", "", (planted.DRIVER, "this stands nowhere", "")),))
    assert run.main([]) == 1
    assert "outgrown" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fault", "nothing", "code"),
    [
        (run.Verdict("m", 1.0, 3, caught_by="a.b"), run.Verdict("", 1.0, 9), 0),
        (run.Verdict("m", 1.0, 9), run.Verdict("", 1.0, 9), 1),  # survived
        (run.Verdict("m", 1.0, error="no answer"), run.Verdict("", 1.0, 9), 1),
        (run.Verdict("m", 1.0, 3, caught_by="a.b"), run.Verdict("", 1.0, 9, caught_by="a.b"), 1),  # catches anything
    ],
)
def test_the_verdict(monkeypatch, fault, nothing, code: int) -> None:
    monkeypatch.setattr(
        run, "MUTANTS", (mutant("m", "", (planted.DRIVER, "port_version = PORT_VERSION", "port_version = 0")),)
    )
    monkeypatch.setattr(run, "try_out", lambda store, name: nothing if name == run.NO_FAULT else fault)
    assert run.main([]) == code


def test_one_mutant_is_caught_in_a_process_of_its_own() -> None:
    verdict = run.try_out("memory", "the dead claim jobs")
    assert verdict.caught_by == "claiming.a_worker_that_was_never_registered_is_lent_nothing", verdict


@pytest.mark.parametrize("store", STORES)
def test_what_is_planted_is_the_driver_under_another_name(tmp_path: Path, store: str) -> None:
    plant.plant(plant.sources(store), tmp_path)
    code = f"import protojobs_mutant; print(protojobs_mutant.{STORES[store].driver}.__module__)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert ran.stdout.strip() == "protojobs_mutant.driver", ran.stderr
