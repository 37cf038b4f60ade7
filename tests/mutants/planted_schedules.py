"""The mutants about schedules, on every store that decides a firing in its own way: see `planted.py`.

PostgreSQL has those whose fault shows only between two transactions.
"""

from __future__ import annotations

from mutants.mutant import mutant

# ------------------------------------------------------------------------------------------------ in memory

FILE = "schedules.py"
KNOWN = "            known,\n            said,\n            now,\n"
STEP = "        if moved is not None and status is not FireStatus.LOST:\n"
FIRE = (
    "        with self.state.lock:\n"
    "            answers = [self._fire_one(said) for said in firings]\n"
    "            self.state.ring()\n"
    "            return answers\n"
)

ON_MEMORY = (
    mutant(
        "a firing fits any time of its schedule",
        "firing",
        (
            FILE,
            KNOWN,
            "            known,\n"
            "            replace(said, expected_next=known.next_due_at) if known and known.next_due_at else said,\n"
            "            now,\n",
        ),
    ),
    mutant(
        "a time that was fired can fire again",
        "firing",
        (FILE, KNOWN, KNOWN.replace("known,", "replace(known, last_due_at=None) if known else None,")),
    ),
    mutant("a time fires before it has come", "firing", (FILE, KNOWN, KNOWN.replace("now,", "max(now, said.due),"))),
    mutant(
        "a schedule fires while it is paused",
        "firing",
        (FILE, KNOWN, KNOWN.replace("known,", "replace(known, is_paused=False) if known else None,")),
    ),
    mutant("overlaps are allowed", "firing", (FILE, "last_job=last.state if last else None,", "last_job=None,")),
    mutant(
        "a job that moves holds nothing up",
        "firing",
        (
            FILE,
            "last_job=last.state if last else None,",
            "last_job=last.state if last and last.moving_from is None else None,",
        ),
    ),
    mutant(
        "the job of a lost firing is stored",
        "firing",
        (
            FILE,
            STEP,
            "        if status is FireStatus.LOST and said.job is not None:\n"
            f"            self.enqueue([said.job])\n{STEP}",
        ),
    ),
    mutant(
        "the job of a time that is passed over is stored",
        "firing",
        (
            FILE,
            "            if status is FireStatus.FIRED and said.job is not None:\n",
            "            if said.job is not None:\n",
        ),
    ),
    mutant(
        "a duplicate leaves its schedule where it is",
        "firing",
        (FILE, STEP, STEP.replace("is not FireStatus.LOST", "not in (FireStatus.LOST, FireStatus.DUPLICATE)")),
    ),
    mutant(
        "a firing is not counted in the version",
        "firing scheduling",
        (FILE, "self._keep(known, moved)", "self._keep(known, replace(moved, version=known.version))"),
    ),
    mutant(
        "a batch of firings is begun before it is checked",
        "firing",
        (FILE, "        check_firings(firings)\n", ""),
        (
            FILE,
            "self._fire_one(said) for said in firings]",
            "(self._fire_one(said), check_firings(firings))[0] for said in firings]",
        ),
    ),
    mutant(
        "two fire at once",
        "racing",
        (FILE, FIRE, "        return [self._fire_one(said) for said in firings]\n"),
    ),
    mutant(
        "a schedule is replaced whatever its version",
        "scheduling",
        (FILE, "if (known.version if known else 0) != version:", "if (known is None) is not (version == 0):"),
    ),
    mutant(
        "schedules ahead are due",
        "scheduling",
        (FILE, "takewhile(lambda key: key < after(now), behind)", "behind"),
    ),
    mutant("paused schedules are due", "scheduling", (FILE, " and not schedule.is_paused:", ":")),
    mutant("all that is due comes at once", "scheduling", (FILE, "for _, name in due[:limit]", "for _, name in due")),
    mutant(
        "a walk through what is due begins at the front each time",
        "scheduling",
        (FILE, " if cursor else iter(times)", " if False else iter(times)"),
    ),
    mutant(
        "a list of schedules goes on behind any text",
        "scheduling",
        (FILE, "        check_schedule_cursor(cursor)\n", ""),
    ),
    mutant("a walk through what is due ends early", "scheduling", (FILE, "0 < limit < len(due)", "False")),
    mutant("a page begins with the last of the one before", "scheduling", (FILE, "name > cursor", "name >= cursor")),
    mutant(
        "schedules are listed in the order of words",
        "scheduling",
        (FILE, "sorted(name for name", "sorted((name for name"),
        (FILE, "cursor is None or name > cursor)", "cursor is None or name > cursor), key=str.casefold)"),
    ),
    mutant(
        "a removed schedule stays due",
        "scheduling",
        (
            FILE,
            "            self._keep(known, None)\n",
            "            self.state.schedules.pop(schedule_id, None)\n",
        ),
    ),
)

# ------------------------------------------------------------------------------------------------ in SQL

MOVED = "after[said.id] = moved"
RULE = "rules.fire(schedule, said, now, last_job=last, is_known=is_known)"

ON_SQL = (
    mutant(
        "SQLite: a firing fits any time of its schedule",
        "firing",
        (
            FILE,
            "        moved, status = rules.fire(",
            "        if schedule and schedule.next_due_at:\n"
            "            said = replace(said, expected_next=schedule.next_due_at)\n"
            "        moved, status = rules.fire(",
        ),
        store="sqlite",
    ),
    mutant("SQLite: overlaps are allowed", "firing", (FILE, RULE, RULE.replace("=last,", "=None,")), store="sqlite"),
    mutant(
        "SQLite: the job of a firing in the same call is not seen",
        "firing",
        (FILE, "            states[job.id] = JobState.PENDING\n", ""),
        store="sqlite",
    ),
    mutant(
        "SQLite: the last time is not written",
        "firing",
        (FILE, MOVED, MOVED.replace("moved", "replace(moved, last_due_at=schedule and schedule.last_due_at)")),
        store="sqlite",
    ),
    mutant(
        "SQLite: a firing is not counted in the version",
        "firing",
        (FILE, MOVED, MOVED.replace("moved", "replace(moved, version=moved.version - 1)")),
        store="sqlite",
    ),
    mutant(
        "SQLite: a schedule is replaced whatever its version",
        "scheduling",
        (
            FILE,
            "mine = (schedules.c.id == schedule.id, schedules.c.version == version)",
            "mine = (schedules.c.id == schedule.id,)",
        ),
        store="sqlite",
    ),
    mutant(
        "SQLite: paused schedules are due",
        "scheduling",
        (FILE, '(schedules.c.is_paused == literal_column("0"), moment.is_not(None))', "(moment.is_not(None),)"),
        store="sqlite",
    ),
    mutant(
        "SQLite: a walk through what is due leaves out those of one time",
        "scheduling",
        (FILE, "or_(moment > time_, name > id_)", "moment > time_"),
        store="sqlite",
    ),
    mutant(
        "SQLite: a walk through what is due shows the last one again",
        "scheduling",
        (FILE, "name > id_)", "name >= id_)"),
        store="sqlite",
    ),
    mutant(
        "PostgreSQL: a schedule that is fired is not locked",
        "racing",
        (FILE, ".order_by(schedules.c.id).with_for_update(skip_locked=True)", ".order_by(schedules.c.id)"),
        store="postgresql",
    ),
)

# ------------------------------------------------------------------------------------------------ in Lua

FIRE_LUA, SCHEDULING_LUA, DUE_LUA = "scripts/fire.lua", "scripts/scheduling.lua", "scripts/due_schedules.lua"
LOST = "if is_lost(schedule, moment(said[2]), due) then return 'l' end"

ON_REDIS = (
    mutant(
        "Valkey: a walk through what is due leaves out those of one time",
        "scheduling",
        (DUE_LUA, "  return first\nend", "  return call('ZCOUNT', DUE, '-inf', exact)\nend"),
        store="valkey",
    ),
    mutant(
        "Valkey: a walk through what is due shows the last one again",
        "scheduling",
        (DUE_LUA, "  return #one < #other", "  return #one <= #other"),
        store="valkey",
    ),
    mutant(
        "Valkey: a firing fits any time of its schedule",
        "firing",
        (FIRE_LUA, " or schedule[NEXT] ~= expected_next", ""),
        store="valkey",
    ),
    mutant(
        "Valkey: a time that was fired can fire again",
        "firing",
        (FIRE_LUA, "return schedule[LAST] ~= '' and not is_later(due, schedule[LAST])", "return false"),
        store="valkey",
    ),
    mutant(
        "Valkey: a time fires before it has come",
        "firing",
        (FIRE_LUA, " or score(due) > now then", " then"),
        store="valkey",
    ),
    mutant(
        "Valkey: a schedule fires while it is paused",
        "firing",
        (FIRE_LUA, " or schedule[IS_PAUSED]", ""),
        store="valkey",
    ),
    mutant(
        "Valkey: overlaps are allowed",
        "firing",
        (
            FIRE_LUA,
            "local function is_held_up(schedule)\n",
            "local function is_held_up(schedule)\n  if true then return false end\n",
        ),
        store="valkey",
    ),
    mutant(
        "Valkey: the job of a lost firing is stored",
        "firing",
        (
            FIRE_LUA,
            LOST,
            LOST.replace("return 'l'", "if job ~= '' and not row_of(job[1]) then add_pushed(job, blob) end return 'l'"),
        ),
        store="valkey",
    ),
    mutant(
        "Valkey: a firing is not counted in the version",
        "firing",
        (FIRE_LUA, "schedule[VERSION] = schedule[VERSION] + 1", "schedule[VERSION] = schedule[VERSION]"),
        store="valkey",
    ),
    mutant(
        "Valkey: one that has ended stays due",
        "firing",
        (SCHEDULING_LUA, "if schedule[NEXT] == '' or schedule[IS_PAUSED] then", "if schedule[IS_PAUSED] then"),
        store="valkey",
    ),
)

SCHEDULE_MUTANTS = (*ON_MEMORY, *ON_SQL, *ON_REDIS)
