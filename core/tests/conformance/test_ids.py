"""The ids of the kit's tests are a contract of their own: reports of different releases are compared by them."""

from __future__ import annotations

import re
from pathlib import Path

from protojobs.testing.conformance.levels import Level, contract_of
from protojobs.testing.conformance.suite import DriverConformance

IDS = Path(__file__).with_name("ids.txt")


def contracts() -> dict[str, str]:
    tests = [name for name in dir(DriverConformance) if name.startswith("test_")]
    found = [contract_of(DriverConformance, name) for name in tests]
    return {contract.id: contract.level.value for contract in found if contract}


def test_every_test_has_an_id_and_no_two_have_the_same() -> None:
    tests = [name for name in dir(DriverConformance) if name.startswith("test_")]
    assert [name for name in tests if contract_of(DriverConformance, name) is None] == []
    assert len(contracts()) == len(tests)


def test_no_test_hides_another_of_the_same_name() -> None:
    owners = [name for owner in DriverConformance.__mro__ for name in vars(owner) if name.startswith("test_")]
    assert sorted(owners) == sorted(set(owners))


def test_the_ids_are_those_of_the_list() -> None:
    """New ids are added to ids.txt. One that is renamed or taken away is told in the changelog as well."""
    listed = dict(line.split() for line in IDS.read_text().splitlines())
    assert contracts() == listed


def test_an_id_is_a_concern_and_a_sentence() -> None:
    assert [id for id in contracts() if not re.fullmatch(r"[a-z]+\.[a-z0-9_]+", id)] == []
    assert set(contracts().values()) == {level.value for level in Level}
