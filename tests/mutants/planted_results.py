"""Faults against results and what comes next: what only the run that counts may store."""

from __future__ import annotations

from mutants.mutant import mutant

SETTLING_LUA = "scripts/settling.lua"
ANSWER = "    blob_at = blob_at + #(settlement[13] or '') / 6\n"


def kept_when(status: str, result: str, jobs: str) -> tuple[str, str, str]:
    """A change by which a settlement with this answer stores what it carries, too."""
    keep = f"keep_carried(id, row, {result}, {jobs}, known, blob_at)"
    return (
        SETTLING_LUA,
        ANSWER,
        f"    if row and settlement[13] and status == {status} then\n      {keep}\n      dirty[id] = row\n    end\n"
        + ANSWER,
    )


CLAIMING, SETTLING = "claiming.py", "verbs/settling.py"
SETTLED = "        _keep_carried(state, now, row, settlement)\n    return settled\n"
CURRENT = "_keep_carried(conn, dialect, [s for s in current if rules.carries(s)])"


def also_when(status: str, does: str) -> tuple[str, str, str]:
    """A change of the memory driver by which a settlement with this answer does something of what it carries, too."""
    wrong = f"    if row is not None and settled.status is SettleStatus.{status}:\n        {does}\n"
    return (CLAIMING, SETTLED, SETTLED.replace("    return", wrong + "    return"))


RESULT_MUTANTS = (
    mutant("a stale settlement stores its result", "results", also_when("STALE", "row.result = settlement.result")),
    mutant(
        "a repeated settlement stores its result", "results", also_when("REPEATED", "row.result = settlement.result")
    ),
    mutant(
        "what comes next is stored with a stale settlement",
        "results",
        also_when("STALE", "enqueue(state, now, settlement.then)"),
    ),
    mutant(
        "what comes next is stored with a repeated settlement",
        "results",
        also_when("REPEATED", "enqueue(state, now, settlement.then)"),
    ),
    mutant("results are there and not claimed", "honesty", ("driver.py", ", results=True)", ")")),
    mutant(
        "SQLite: what a settlement carries is stored whether or not its claim is current",
        "results",
        (SETTLING, CURRENT, CURRENT.replace("in current", "in settlements")),
        store="sqlite",
    ),
    mutant(
        "SQLite: a completion that carries something is taken for a plain one",
        "results",
        (
            SETTLING,
            "    ids = {s.id for s in settlements if s.verb is _COMPLETE and s.result is None and not s.then}",
            "    ids = {s.id for s in settlements if s.verb is _COMPLETE}",
        ),
        store="sqlite",
    ),
    mutant(
        "Valkey: a stale settlement stores its result",
        "results",
        kept_when("STALE", "settlement[12]", "{}"),
        store="valkey",
    ),
    mutant(
        "Valkey: a repeated settlement stores its result",
        "results",
        kept_when("REPEATED", "settlement[12]", "{}"),
        store="valkey",
    ),
    mutant(
        "Valkey: what comes next is stored with a stale settlement",
        "results",
        kept_when("STALE", "nil", "settlement[13]"),
        store="valkey",
    ),
    mutant(
        "Valkey: what comes next is stored with a repeated settlement",
        "results",
        kept_when("REPEATED", "nil", "settlement[13]"),
        store="valkey",
    ),
    mutant(
        "Valkey: what comes next and is known already is stored anew",
        "results",
        (SETTLING_LUA, "    if not known[job[1]] and not dirty[job[1]] then", "    if not dirty[job[1]] then"),
        store="valkey",
    ),
    mutant(
        "Valkey: what comes next gets the data of what another settlement asks for",
        "results",
        (SETTLING_LUA, ANSWER, "    blob_at = BLOBS_AT\n"),
        store="valkey",
    ),
)
