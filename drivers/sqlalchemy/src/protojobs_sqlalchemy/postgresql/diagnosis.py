"""What to look at in PostgreSQL: dead rows and who keeps them, what a commit survives, what lies between us and it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from sqlalchemy import Connection, text

from protojobs.port.diagnosis import Finding, Severity, judged
from protojobs_sqlalchemy.diagnosing import encryption
from protojobs_sqlalchemy.dialect import Dialect, Look
from protojobs_sqlalchemy.postgresql.pooler import notifications, pooler
from protojobs_sqlalchemy.postgresql.turn import raw_of
from protojobs_sqlalchemy.tables.indexes import names_of_others
from protojobs_sqlalchemy.tables.naming import Names

__all__ = ["looks"]

OLD_TRANSACTION_S = 60.0
DEAD_MAX = 100_000  # autovacuum is told to begin at 20,000
USED_SHARE_MAX = 0.8  # of max_connections
_SHOWN_MAX = 5

_SESSIONS = """
SELECT pid, usename, application_name, state, extract(epoch FROM clock_timestamp() - xact_start)::int AS age
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
  AND xact_start < clock_timestamp() - make_interval(secs => :age)
ORDER BY xact_start LIMIT 20
"""
_PREPARED = """
SELECT gid, owner, extract(epoch FROM clock_timestamp() - prepared)::int AS age
FROM pg_prepared_xacts
WHERE database = current_database() AND prepared < clock_timestamp() - make_interval(secs => :age)
ORDER BY prepared LIMIT 20
"""
_TABLES = """
SELECT s.relid::regclass::text AS relname, s.n_live_tup, s.n_dead_tup,
       greatest(s.last_autovacuum, s.last_vacuum) AS vacuumed_at,
       coalesce('autovacuum_enabled=false' = ANY(c.reloptions), false) AS is_off
FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid
WHERE s.relid IN (to_regclass('@jobs'), to_regclass('@workers'), to_regclass('@counters'))
"""
_INVALID = """
SELECT i.indexrelid::regclass::text FROM pg_index i
WHERE NOT i.indisvalid AND i.indrelid IN (to_regclass('@jobs'), to_regclass('@failed_jobs'), to_regclass('@schedules'))
"""
_SCANS = """
SELECT indexrelname, idx_scan FROM pg_stat_user_indexes
WHERE relid = to_regclass('@jobs') AND indexrelname = ANY(:names)
"""


def looks(connect: Callable[[], Connection], dialect: Dialect, script: str) -> list[Look]:
    """The looks, in order. `connect` opens a second connection; `script` is the text of a whole migration."""
    return [
        lambda conn: _indexes(conn, dialect.names, script),
        lambda conn: _dead_rows(conn, dialect.names),
        _old_transactions,
        _slots,
        _durability,
        _isolation,
        _server,
        _encryption,
        lambda conn: pooler(conn, connect),
        lambda conn: notifications(conn, dialect),
    ]


def _indexes(conn: Connection, names: Names, script: str) -> Iterator[Finding]:
    invalid = [str(row[0]) for row in conn.exec_driver_sql(names.sql(_INVALID))]
    yield judged(
        "indexes_invalid",
        f"Indexes that are not valid: {', '.join(invalid)}." if invalid else "Every index is valid.",
        is_good=not invalid,
        bad=Severity.ERROR,
        why="CREATE INDEX CONCURRENTLY was broken off: they are written to, and no query uses them.",
        mend="; ".join(f"REINDEX INDEX CONCURRENTLY {name}" for name in invalid),
    )
    others = names_of_others(conn, names, script)
    if not others:
        return
    scans = {str(row[0]): int(row[1]) for row in conn.execute(text(names.sql(_SCANS)), {"names": others})}
    unused = [name for name in others if not scans.get(name)]
    quote = conn.dialect.identifier_preparer.quote
    prefix = "" if names.schema is None else f"{quote(names.schema)}."
    used = ", ".join(f"{name} ({scans.get(name, 0):,} scans)" for name in others)
    yield Finding(
        code="indexes_other",
        severity=Severity.WARNING if unused else Severity.NOTE,
        what=f"The table {names.quoted('jobs')} has indexes that are not protojobs's: {used}.",
        why="Each is written to with every push, claim and settlement, a tenth of their cost or so.",
        mend="; ".join(f"DROP INDEX CONCURRENTLY {prefix}{quote(name)}" for name in unused),
    )


def _dead_rows(conn: Connection, names: Names) -> Iterator[Finding]:
    """Rows that vacuum has not taken away. Claims walk over those of jobs."""
    rows = conn.exec_driver_sql(names.sql(_TABLES)).fetchall()
    bloated = [row for row in rows if row.n_dead_tup > max(DEAD_MAX, row.n_live_tup)]
    shown = [f"{row.relname}: {row.n_dead_tup:,} dead, {row.n_live_tup:,} live" for row in bloated or rows]
    last = max((row.vacuumed_at for row in bloated if row.vacuumed_at is not None), default=None)
    yield judged(
        "dead_rows",
        f"Rows: {'; '.join(shown)}{f'; vacuumed last at {last:%Y-%m-%d %H:%M:%S}' if last else ''}.",
        is_good=not bloated,
        why="Each claim walks over dead rows. Vacuum cannot take away what an open transaction may still read.",
        mend=f"End old transactions, then: VACUUM (ANALYZE) {', '.join(row.relname for row in bloated)};",
    )
    is_on = str(conn.exec_driver_sql("SHOW autovacuum").scalar()) == "on"
    off = [row.relname for row in rows if row.is_off]
    yield judged(
        "autovacuum",
        "autovacuum is on." if is_on and not off else f"autovacuum is off{' for ' + ', '.join(off) if off else ''}.",
        is_good=is_on and not off,
        why="Every claim and every settlement leaves a dead row behind.",
        mend="; ".join(f"ALTER TABLE {name} RESET (autovacuum_enabled)" for name in off)
        or ("" if is_on else "ALTER SYSTEM SET autovacuum = on; SELECT pg_reload_conf();"),
    )


def _old_transactions(conn: Connection) -> Iterator[Finding]:
    sessions = conn.execute(text(_SESSIONS), {"age": OLD_TRANSACTION_S}).fetchall()
    prepared = conn.execute(text(_PREPARED), {"age": OLD_TRANSACTION_S}).fetchall()
    who = [
        f"process {row.pid} of {row.usename} ({row.application_name or 'no name'}), {row.state}, for {row.age} s"
        for row in sessions
    ]
    who += [f"prepared transaction {row.gid} of {row.owner} for {row.age} s" for row in prepared]
    end = next((f"SELECT pg_terminate_backend({row.pid});" for row in sessions), "ROLLBACK PREPARED ...;")
    yield judged(
        "old_transaction",
        f"Transactions that have been open for long: {_shown(who)}."
        if who
        else "No transaction has been open for long.",
        is_good=not who,
        why="Vacuum takes nothing away that they may still read, and every claim walks over it.",
        mend=f"Commit sooner; idle_in_transaction_session_timeout ends idle ones. To end the oldest now: {end}",
    )
    hidden = conn.exec_driver_sql(
        "SELECT count(*) FROM pg_stat_activity WHERE query = '<insufficient privilege>'"
        " AND datname = current_database()"
    ).scalar_one()
    if hidden:
        yield Finding(
            code="sessions_hidden",
            severity=Severity.NOTE,
            what=f"{hidden} sessions of other users may not be looked at: one may hold an old transaction.",
            mend="GRANT pg_read_all_stats TO this user.",
        )


def _slots(conn: Connection) -> Iterator[Finding]:
    """Replication slots that nobody reads hold dead rows and log files for ever."""
    idle = [str(row[0]) for row in conn.exec_driver_sql("SELECT slot_name FROM pg_replication_slots WHERE NOT active")]
    yield judged(
        "replication_slots",
        f"Replication slots that nobody reads: {_shown(idle)}." if idle else "No replication slot is left behind.",
        is_good=not idle,
        why="The server keeps its log for them until the disk is full, and perhaps dead rows too.",
        mend="; ".join(f"SELECT pg_drop_replication_slot('{name}')" for name in idle[:_SHOWN_MAX]),
    )


def _durability(conn: Connection) -> Iterator[Finding]:
    """Whether what was acknowledged outlives a crash."""
    promises = (
        ("fsync", Severity.ERROR, "A power cut loses jobs that were acknowledged, and may spoil the whole database."),
        ("full_page_writes", Severity.ERROR, "A page that was half written when the power went spoils the database."),
        ("synchronous_commit", Severity.WARNING, "A crash of the server loses about half a second of pushed jobs."),
    )
    for name, severity, why in promises:
        value = str(conn.exec_driver_sql(f"SHOW {name}").scalar())
        role = " and, where a role or a database has its own: ALTER ROLE ... RESET synchronous_commit;"
        yield judged(
            name,
            f"{name} is {value}.",
            is_good=value != "off",
            bad=severity,
            why=why,
            mend=f"ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf();{role if name.startswith('sync') else ''}",
        )


def _isolation(conn: Connection) -> Iterator[Finding]:
    """Single statements run at the level that sessions begin with."""
    level = str(conn.exec_driver_sql("SHOW default_transaction_isolation").scalar())
    is_good = level == "read committed"
    yield judged(
        "isolation_level",
        f"default_transaction_isolation is {level!r}.",
        is_good=is_good,
        why="Above read committed, claims that meet each other fail and are tried again instead of passing by.",
        mend="ALTER ROLE (or DATABASE) ... SET default_transaction_isolation = 'read committed';",
    )


def _server(conn: Connection) -> Iterator[Finding]:
    row = conn.exec_driver_sql(
        "SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used,"
        " current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int AS most,"
        " pg_is_in_recovery() AS is_standby, current_setting('default_transaction_read_only') = 'on' AS is_read_only"
    ).one()
    is_full = row.used > row.most * USED_SHARE_MAX
    yield judged(
        "max_connections",
        f"{row.used} of {row.most} connections are in use.",
        is_good=not is_full,
        why="Beyond it a worker that starts, or a push, is refused.",
        mend="Raise max_connections, put a pooler in front, or use fewer processes; a worker holds three, and more"
        " while its jobs push.",
    )
    is_closed = row.is_standby or row.is_read_only
    yield judged(
        "read_only",
        "The server is a standby, which takes no writes."
        if row.is_standby
        else f"The database is {'' if is_closed else 'not '}read-only.",
        is_good=not is_closed,
        bad=Severity.ERROR,
        why="No push is taken and no result stored there.",
        mend="Give the URL of the primary, or all hosts: postgresql://one,two/app?target_session_attrs=read-write.",
    )


def _encryption(conn: Connection) -> Iterator[Finding]:
    """The library encrypts where the server offers it, and goes on in plain text where it does not."""
    raw = raw_of(conn)
    mend = "Add sslmode=require (or verify-full, with sslrootcert=FILE) to the URL. The server needs ssl = on."
    yield encryption(raw.info.hostaddr or raw.info.host, is_encrypted=raw.pgconn.ssl_in_use, mend=mend)


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN_MAX} more" if len(names) > _SHOWN_MAX else ""
    return "; ".join(names[:_SHOWN_MAX]) + more
