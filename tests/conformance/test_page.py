"""The conformance page is made from reports and tells what is in them, the bad news too."""

from __future__ import annotations

from conformance.page import PAGE, Run, page
from conformance.stores import NOT_RUN, STORES
from protojobs.testing.conformance.levels import contract_of
from protojobs.testing.conformance.suite import DriverConformance

CONCERNS = {
    contract.concern
    for name in dir(DriverConformance)
    if name.startswith("test_") and (contract := contract_of(DriverConformance, name))
}


def counts(name: str, outcome: str, **numbers: int) -> dict[str, object]:
    blank = {"passed": 0, "failed": 0, "not_claimed": 0, "not_run": 0}
    return {"name": name, "level": "queue", "outcome": outcome, "seconds": 1.0, **blank, **numbers}


def report(reached: str | None, concern: dict[str, object]) -> dict[str, object]:
    level = {**concern, "name": "queue"}
    subject = {"distribution": "protojobs-memory 9.9"}
    return {
        "ok": True,
        "reached": reached,
        "seconds": 5.4,
        "subject": subject,
        "concerns": [concern],
        "levels": [level],
    }


def row(text: str, name: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_store_that_fails_or_cannot_be_had_is_told_so() -> None:
    memory, sqlite, postgresql = STORES[:3]
    text = page(
        [
            Run(memory, "1.0", report("queue", counts("fencing", "passed", passed=113))),
            Run(sqlite, "2.0", report(None, counts("fencing", "failed", passed=110, failed=3))),
            Run(postgresql, trouble="no server"),
        ]
    )
    assert row(text, "fencing") == ["fencing", "113", "110, 3 FAILED"]
    assert row(text, "**reached**") == ["**reached**", "**queue**", "**none**"]
    assert row(text, "PostgreSQL")[-1] == "*not run here*"
    assert [row(text, name)[-1] for name, _, _ in NOT_RUN] == ["*not run*"] * len(NOT_RUN)
    assert "@" not in text.replace("@pytest", "").replace("conformance@1", "")


def test_the_committed_page_has_every_store_and_every_concern() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for concern in CONCERNS - {"transactions", "faults"}:
        assert all(int(cell) > 0 for cell in row(text, concern)[1:]), concern
        assert len(row(text, concern)) == len(STORES) + 1
    for name in [store.name for store in STORES] + [name for name, _, _ in NOT_RUN]:
        assert len(row(text, name)) == 4, "the page is out of date: python3 dev.py conformance-page"
