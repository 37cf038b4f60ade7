"""The Lua scripts: which files make one up, and the digest by which the server knows it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from protojobs.port.lifecycle import RETURNS_FREE, SUSPECT_RECLAIMS
from protojobs.port.records import BATCH_BYTES_MAX
from protojobs.port.results import ERROR_CHARS_MAX
from protojobs.port.rules import PASSED_OVER_MAX, SETTLES_TO
from protojobs_redis.packing import LETTERS

__all__ = ["Script", "script"]

_FOLDER = Path(__file__).parent / "scripts"
_CONSTANTS = {
    "BATCH_BYTES_MAX": BATCH_BYTES_MAX,
    "PASSED_OVER_MAX": PASSED_OVER_MAX,
    "RETURNS_FREE": RETURNS_FREE,
    "SUSPECT_RECLAIMS": SUSPECT_RECLAIMS,
}
_SETTLES_TO = ", ".join(f"{verb.value} = '{LETTERS[state]}'" for verb, state in SETTLES_TO.items())
_IN_FRONT_OF = {  # of one part alone: each costs each call
    "settling": f"local SETTLES_TO = {{{_SETTLES_TO}}}\n",
    "get_results": f"local ERROR_CHARS_MAX = {ERROR_CHARS_MAX}\n",
}
# What a script consists of. What every job goes through takes as little as it can: the server runs all of it anew for
# each call.
_LEAN = {
    "enqueue": ("prelude", "enqueue"),
    "now": ("prelude", "now"),
    "turn": ("prelude", "ways", "completing", "claiming", "turn"),
    "turn_any": ("prelude", "ways", "jobs", "completing", "settling", "claiming", "turn"),
}
# The others have the prelude, jobs, their own file, and before it these.
_PARTS = {
    "stats": ("counting",),
    "queues": ("counting",),
    "retry_failed": ("failures",),
    "forget_failed": ("failures", "noting", "removing"),
    "clear": ("noting", "removing"),
    "prune": ("noting", "removing"),
    "drop_exported": ("noting", "removing"),
    "find": ("cutting",),
    "failed": ("cutting", "showing"),
    "get_failed": ("cutting", "showing"),
    "get_results": ("cutting", "showing"),
    "failure_groups": ("cutting", "showing"),
    **dict.fromkeys(
        ("record", "rollups", "begin_sample", "keep_sample", "depths", "attempts", "note_action", "actions"),
        ("noting",),
    ),
    "save_schedule": ("scheduling",),
    "get_schedules": ("scheduling",),
    "list_schedules": ("scheduling",),
    "due_schedules": ("scheduling",),
    "fire": ("scheduling",),
    "remove_schedule": ("scheduling",),
}


class Script(Struct, frozen=True):
    """A script as it is sent, and its SHA-1, which is what goes over the wire from the second time on."""

    name: str
    text: str
    sha: str


_scripts: dict[str, Script] = {}


def script(name: str) -> Script:
    """The script of the verb `name`. Read once; two threads that come first both read it, which is harmless."""
    known = _scripts.get(name)
    if known is None:
        parts = _LEAN.get(name) or ("prelude", "ways", "jobs", *_PARTS.get(name, ()), name)
        known = _scripts[name] = _read(name, parts)
    return known


def _read(name: str, parts: Iterable[str]) -> Script:
    constants = "".join(f"local {key} = {value}\n" for key, value in _CONSTANTS.items())
    files = ((_IN_FRONT_OF.get(part, ""), (_FOLDER / f"{part}.lua").read_text("utf-8")) for part in parts)
    text = constants + "\n".join(before + text for before, text in files)
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
