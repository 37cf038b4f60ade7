"""Faults against the rules of every verb, and against what a driver's author found untested (memory and SQL)."""

from __future__ import annotations

from mutants.mutant import mutant

DRIVER, CONNECTIONS, SQLITE = "driver.py", "connecting/connections.py", "sqlite/dialect.py"
SCHEMA = "migrations/version.py"

RULE_MUTANTS = (
    mutant(
        "a result is answered as applied and lost with the lease",
        "claiming",
        (
            DRIVER,
            "            settled = tuple(self.settle(settlements))\n",
            "            if limit and worker not in self.state.workers:\n"
            "                to = rules.SETTLES_TO\n"
            "                told = tuple(Settled(one.id, APPLIED, to[one.verb]) for one in settlements)\n"
            "                return ClaimReply(settled=told, lease_lost=True)\n"
            "            settled = tuple(self.settle(settlements))\n",
        ),
        (
            DRIVER,
            "_shared: dict[str, State] = {}\n",
            "_shared: dict[str, State] = {}\nAPPLIED = SettleStatus.APPLIED\n",
        ),
        (DRIVER, "    Settlement,\n    Stats,\n", "    Settlement,\n    SettleStatus,\n    Stats,\n"),
    ),
    mutant(
        "a turn that only settles looks for the lease",
        "claiming",
        (DRIVER, "slots=slots, limit=limit)) if limit else ()", "slots=slots, limit=limit))"),
    ),
    mutant(
        "a wait sleeps through the time at which a job becomes due",
        "waiting",
        (DRIVER, "self.state.wakeup.wait(min(due_in, left))", "self.state.wakeup.wait(left)"),
    ),
    mutant(
        "a register keeps the row that is there",
        "leases",
        (
            "leases.py",
            "    state.workers[worker.id] = rules.renewed(worker, now)\n",
            "    state.workers.setdefault(worker.id, rules.renewed(worker, now))\n",
        ),
    ),
    mutant(
        "SQLite: a forked child uses its parent's connections",
        "rules",
        (CONNECTIONS, "            pool.start_afresh()\n", "            pass\n"),
        store="sqlite",
    ),
    mutant(
        "SQLite: the write lock is awaited whatever the caller's limit",
        "rules",
        (SQLITE, "time_left(_BUSY_S)", "_BUSY_S"),
        store="sqlite",
    ),
    mutant(
        "SQLite: foreign exceptions leave",
        "rules",
        (CONNECTIONS, "if ours is None or ours is error:", "if ours:"),
        store="sqlite",
    ),
    mutant(
        "SQLite: the contract is broken before setup",
        "rules",
        (
            SCHEMA,
            "        raise outdated(conn, names, version)",
            "        raise ContractBroken(str(outdated(conn, names, version)))",
        ),
        (SCHEMA, "import SchemaOutdated", "import ContractBroken, SchemaOutdated"),
        store="sqlite",
    ),
    mutant(
        "SQLite: a driver connects as soon as it is made",
        "rules",
        (
            DRIVER,
            "        self._use(connections, Joining(connections))\n",
            "        self._use(connections, Joining(connections))\n        self._early = connections.connect()\n",
        ),
        store="sqlite",
    ),
    mutant(
        "PostgreSQL: workers and heartbeats take the connections of sessions",
        "transactions",
        (
            CONNECTIONS,
            "            self._pools = {use: OursPool(engine, _IDLE_MAX[use]) for use in Use}\n",
            "            self._sessions = make_sessions()\n"
            "            self._pools = {use: TheirPool(self._sessions) for use in Use}\n",
        ),
        store="postgresql",
    ),
)
