"""Faults against results and what comes next, in Lua: what only the run that counts may store."""

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


RESULTS_ON_REDIS = (
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
