"""The mutants about schedules, on every store that decides a firing in its own way: see `planted.py`.

PostgreSQL has those whose fault shows only between two transactions.
"""

from __future__ import annotations

from mutants.mutant import mutant

# in memory

FILE = "schedules.py"
BEFORE = "        before,\n        firing,\n        now,\n"
STEP = "    if moved is not None and status is not FireStatus.LOST:\n"

ON_MEMORY = (
    mutant(
        "a firing fits any time of its schedule",
        "firing",
        (
            FILE,
            BEFORE,
            "        before,\n"
            "        replace(firing, expected_next=before.next_due_at) if before and before.next_due_at else firing,\n"
            "        now,\n",
        ),
    ),
    mutant(
        "a time that was fired can fire again",
        "firing",
        (FILE, BEFORE, BEFORE.replace("before,", "replace(before, last_due_at=None) if before else None,")),
    ),
    mutant(
        "a time fires before it has come", "firing", (FILE, BEFORE, BEFORE.replace("now,", "max(now, firing.due),"))
    ),
    mutant(
        "a schedule fires while it is paused",
        "firing",
        (FILE, BEFORE, BEFORE.replace("before,", "replace(before, is_paused=False) if before else None,")),
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
            "    if status is FireStatus.LOST and firing.job is not None:\n"
            f"        enqueue(state, now, [firing.job])\n{STEP}",
        ),
    ),
    mutant(
        "the job of a time that is passed over is stored",
        "firing",
        (
            FILE,
            "        if status is FireStatus.FIRED and firing.job is not None:\n",
            "        if firing.job is not None:\n",
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
        (FILE, "_put(state, before, moved)", "_put(state, before, replace(moved, version=before.version))"),
    ),
    mutant(
        "a batch of firings is begun before it is checked",
        "firing",
        ("driver.py", "        rules.check_firings(firings)\n", ""),
        (
            FILE,
            "_fire_one(state, now, firing) for firing in firings]",
            "(_fire_one(state, now, firing), rules.check_firings(firings))[0] for firing in firings]",
        ),
    ),
    mutant(
        "two fire at once",
        "racing",
        (
            "driver.py",
            "        with self.state.lock:\n            return schedules.fire(self.state, self.now(), firings)\n",
            "        return [schedules._fire_one(self.state, self.now(), firing) for firing in firings]\n",
        ),
    ),
    mutant(
        "a schedule is replaced whatever its version",
        "scheduling",
        (FILE, "if (before.version if before else 0) != version:", "if (before is None) is not (version == 0):"),
    ),
    mutant(
        "schedules ahead are due",
        "scheduling",
        (FILE, "takewhile(lambda key: key < after(now), behind)", "behind"),
    ),
    mutant("paused schedules are due", "scheduling", (FILE, " and not each.is_paused:", ":")),
    mutant(
        "all that is due comes at once",
        "scheduling",
        (FILE, "for _, schedule_id in keys[:limit]", "for _, schedule_id in keys"),
    ),
    mutant(
        "a walk through what is due begins at the front each time",
        "scheduling",
        (FILE, " if cursor else iter(times)", " if False else iter(times)"),
    ),
    mutant(
        "a list of schedules goes on behind any text",
        "scheduling",
        ("driver.py", "        rules.check_schedule_cursor(cursor)\n", ""),
    ),
    mutant("a walk through what is due ends early", "scheduling", (FILE, "0 < limit < len(keys)", "False")),
    mutant(
        "a page begins with the last of the one before",
        "scheduling",
        (FILE, "schedule_id > cursor", "schedule_id >= cursor"),
    ),
    mutant(
        "schedules are listed in the order of words",
        "scheduling",
        (FILE, "sorted(schedule_id for schedule_id", "sorted((schedule_id for schedule_id"),
        (
            FILE,
            "cursor is None or schedule_id > cursor)",
            "cursor is None or schedule_id > cursor), key=str.casefold)",
        ),
    ),
    mutant(
        "a removed schedule stays due",
        "scheduling",
        (
            FILE,
            "    _put(state, before, None)\n",
            "    state.schedules.pop(schedule_id, None)\n",
        ),
    ),
)

# in SQL

SQL_FILE = "verbs/schedules.py"
MOVED = "after[firing.id] = moved"
RULE = "rules.fire(schedule, firing, now, last_job=last, is_known=is_known)"

ON_SQL = (
    mutant(
        "SQLite: a firing fits any time of its schedule",
        "firing",
        (
            SQL_FILE,
            "        moved, status = rules.fire(",
            "        if schedule and schedule.next_due_at:\n"
            "            firing = replace(firing, expected_next=schedule.next_due_at)\n"
            "        moved, status = rules.fire(",
        ),
        store="sqlite",
    ),
    mutant(
        "SQLite: overlaps are allowed", "firing", (SQL_FILE, RULE, RULE.replace("=last,", "=None,")), store="sqlite"
    ),
    mutant(
        "SQLite: the job of a firing in the same call is not seen",
        "firing",
        (SQL_FILE, "            states[job.id] = JobState.PENDING\n", ""),
        store="sqlite",
    ),
    mutant(
        "SQLite: the last time is not written",
        "firing",
        (SQL_FILE, MOVED, MOVED.replace("moved", "replace(moved, last_due_at=schedule and schedule.last_due_at)")),
        store="sqlite",
    ),
    mutant(
        "SQLite: a firing is not counted in the version",
        "firing",
        (SQL_FILE, MOVED, MOVED.replace("moved", "replace(moved, version=moved.version - 1)")),
        store="sqlite",
    ),
    mutant(
        "SQLite: a schedule is replaced whatever its version",
        "scheduling",
        (
            SQL_FILE,
            "mine = (schedules.c.id == schedule.id, schedules.c.version == version)",
            "mine = (schedules.c.id == schedule.id,)",
        ),
        store="sqlite",
    ),
    mutant(
        "SQLite: paused schedules are due",
        "scheduling",
        (SQL_FILE, '(self._table.c.is_paused == literal_column("0"), moment.is_not(None))', "(moment.is_not(None),)"),
        store="sqlite",
    ),
    mutant(
        "SQLite: a walk through what is due leaves out those of one time",
        "scheduling",
        (SQL_FILE, "or_(moment > time_, name > id_)", "moment > time_"),
        store="sqlite",
    ),
    mutant(
        "SQLite: a walk through what is due shows the last one again",
        "scheduling",
        (SQL_FILE, "name > id_)", "name >= id_)"),
        store="sqlite",
    ),
    mutant(
        "PostgreSQL: a schedule that is fired is not locked",
        "racing",
        (SQL_FILE, ".order_by(self._table.c.id).with_for_update(skip_locked=True)", ".order_by(self._table.c.id)"),
        store="postgresql",
    ),
)

# in Lua

FIRE_LUA, SCHEDULING_LUA, DUE_LUA = "scripts/fire.lua", "scripts/scheduling.lua", "scripts/due_schedules.lua"
LOST = "if is_lost(schedule, moment(firing[2]), due) then return 'l' end"

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
