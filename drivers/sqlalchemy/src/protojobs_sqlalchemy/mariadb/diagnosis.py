"""What to look at in MariaDB and MySQL: what a commit survives, how names compare, who holds things up."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, bindparam, text

from protojobs.port.diagnosis import Finding, Severity, judged
from protojobs.port.records import BATCH_BYTES_MAX
from protojobs_sqlalchemy.diagnosing import encryption
from protojobs_sqlalchemy.dialect import Look
from protojobs_sqlalchemy.mariadb.connection import socket_of
from protojobs_sqlalchemy.mariadb.turn import raw_of
from protojobs_sqlalchemy.tables.tables import Tables
from protojobs_sqlalchemy.tables.types import Name

__all__ = ["looks"]

OLD_TRANSACTION_S = 60.0
HISTORY_MAX = 1_000_000  # undo entries that purge has not got to; docs/decisions/0020
USED_SHARE_MAX = 0.8  # of max_connections
_LOCK_WAIT_MAX_S = 10
_PACKET_MIN = 2 * BATCH_BYTES_MAX  # a batch, escaped
_SHOWN_MAX = 5


def _durability(conn: Connection) -> Iterator[Finding]:
    """Whether what was acknowledged outlives a power cut."""
    variables = _variables(conn, "innodb_flush_log_at_trx_commit", "innodb_doublewrite", "sync_binlog", "log_bin")
    flush = variables.get("innodb_flush_log_at_trx_commit", "1")
    yield judged(
        "innodb_flush_log_at_trx_commit",
        f"innodb_flush_log_at_trx_commit is {flush}.",
        is_good=flush == "1",
        why="Other than 1, about a second of acknowledged jobs is lost in a power cut.",
        mend="SET GLOBAL innodb_flush_log_at_trx_commit = 1, and the same in the configuration.",
    )
    if variables.get("log_bin", "OFF") in ("ON", "1"):
        sync = variables.get("sync_binlog", "1")
        yield judged(
            "sync_binlog",
            f"sync_binlog is {sync}.",
            is_good=sync == "1",
            why="Other than 1, a replica may lack acknowledged jobs after a crash of this server.",
            mend="SET GLOBAL sync_binlog = 1, and the same in the configuration.",
        )
    double = variables.get("innodb_doublewrite", "ON")
    yield judged(
        "innodb_doublewrite",
        f"innodb_doublewrite is {double}.",
        is_good=double.upper() not in ("OFF", "0"),
        why="Without it a page that was half written when the power went is lost, and the table with it.",
        mend="innodb_doublewrite = ON in the configuration, unless the disk writes whole pages.",
    )


def _locking(conn: Connection) -> Iterator[Finding]:
    """What the connections of this driver are given, as far as a claim depends on it."""
    variables = _variables(
        conn, "tx_isolation", "transaction_isolation", "innodb_lock_wait_timeout", "binlog_format", "log_bin",
        "innodb_deadlock_detect", "max_allowed_packet", scope="SESSION",
    )  # fmt: skip
    level = variables.get("transaction_isolation") or variables.get("tx_isolation", "")
    is_strict = level.upper() == "SERIALIZABLE"
    yield judged(
        "transaction_isolation",
        f"transaction_isolation is {level}.",
        is_good=not is_strict,
        why="Each single statement locks what it reads: workers wait for each other. Claims set READ COMMITTED.",
        mend="SET GLOBAL transaction_isolation = 'READ-COMMITTED'.",
    )
    is_statement = variables.get("log_bin") in ("ON", "1") and variables.get("binlog_format", "").upper() == "STATEMENT"
    yield judged(
        "binlog_format",
        f"binlog_format is {variables.get('binlog_format', 'not set')},"
        f" the binary log {variables.get('log_bin', 'OFF')}.",
        is_good=not is_statement,
        why="READ COMMITTED, which claims need, cannot be logged by statement: every claim is refused.",
        mend="SET GLOBAL binlog_format = 'MIXED', and the same in the configuration.",
        bad=Severity.ERROR,
    )
    wait_s = int(variables.get("innodb_lock_wait_timeout", "50"))
    yield judged(
        "innodb_lock_wait_timeout",
        f"innodb_lock_wait_timeout is {wait_s} s.",
        is_good=wait_s <= _LOCK_WAIT_MAX_S,
        why="A verb that meets a lock waits for so long before it tries again; a heartbeat must not.",
        mend="SET SESSION innodb_lock_wait_timeout = 3 on your own engine's connections.",
    )
    detects = variables.get("innodb_deadlock_detect", "ON")
    yield judged(
        "innodb_deadlock_detect",
        f"innodb_deadlock_detect is {detects}.",
        is_good=detects.upper() not in ("OFF", "0"),
        why="Two transactions that wait for each other do so until innodb_lock_wait_timeout.",
        mend="SET GLOBAL innodb_deadlock_detect = ON.",
    )
    packet = int(variables.get("max_allowed_packet", "0"))
    yield judged(
        "max_allowed_packet",
        f"max_allowed_packet is {packet:,} bytes.",
        is_good=packet >= _PACKET_MIN,
        why=f"A batch of up to {BATCH_BYTES_MAX:,} payload bytes travels in one packet, and is refused beyond it.",
        mend=f"SET GLOBAL max_allowed_packet = {4 * BATCH_BYTES_MAX}, and the same in the configuration.",
    )


def _tables(conn: Connection, tables: Tables) -> Iterator[Finding]:
    """Engines and collations, which a dump that was loaded elsewhere may have changed."""
    sorted_tables = tables.metadata.sorted_tables
    names = [table.name for table in sorted_tables]
    query = text("SELECT table_name, engine FROM information_schema.tables WHERE table_schema = database()"
                 " AND table_name IN :names AND engine <> 'InnoDB'")  # fmt: skip
    others = [str(row[0]) for row in conn.execute(query.bindparams(bindparam("names", names, expanding=True)))]
    yield judged(
        "engine",
        f"Tables that are not InnoDB: {', '.join(others)}." if others else "All tables are InnoDB.",
        is_good=not others,
        bad=Severity.ERROR,
        why="Another engine has no transactions: a crash leaves half of a step behind.",
        mend="; ".join(f"ALTER TABLE {name} ENGINE = InnoDB" for name in others),
    )
    wanted = {
        (table.name, column.name)
        for table in sorted_tables
        for column in table.columns
        if isinstance(column.type, Name)
    }
    query = text("SELECT table_name, column_name, collation_name FROM information_schema.columns WHERE"
                 " table_schema = database() AND table_name IN :names"
                 " AND collation_name NOT IN ('utf8mb4_nopad_bin', 'utf8mb4_0900_bin')")  # fmt: skip
    rows = conn.execute(query.bindparams(bindparam("names", names, expanding=True))).fetchall()
    loose = [f"{row[0]}.{row[1]} ({row[2]})" for row in rows if (str(row[0]), str(row[1])) in wanted]
    yield judged(
        "collation",
        f"Names that are not compared byte by byte: {', '.join(loose[:_SHOWN_MAX])}."
        if loose
        else "Names are compared byte by byte.",
        is_good=not loose,
        bad=Severity.ERROR,
        why="'Emails', 'émails' and 'emails' are one queue then, and jobs run where they should not.",
        mend="Give these columns the collation of the migration again: `protojobs migrate --sql` shows it.",
    )


def _transactions(conn: Connection) -> Iterator[Finding]:
    """Transactions that have been open for long, and the undo entries that they keep."""
    query = text("SELECT t.trx_mysql_thread_id, p.user, p.host, p.command,"
                 " timestampdiff(SECOND, t.trx_started, now()) AS age"
                 " FROM information_schema.innodb_trx t LEFT JOIN information_schema.processlist p"
                 " ON p.id = t.trx_mysql_thread_id WHERE t.trx_mysql_thread_id <> connection_id()"
                 " AND t.trx_started < now() - INTERVAL :age SECOND ORDER BY t.trx_started LIMIT 20")  # fmt: skip
    rows = conn.execute(query, {"age": OLD_TRANSACTION_S}).fetchall()
    who = "; ".join(f"connection {row[0]} of {row[1]} at {row[2]} ({row[3]}) for {row[4]} s" for row in rows)
    yield judged(
        "old_transaction",
        f"Transactions that have been open for long: {who}." if rows else "No transaction has been open for long.",
        is_good=not rows,
        why="What others delete or change meanwhile is kept for them, and every claim walks over it.",
        mend=f"Commit sooner; KILL {rows[0][0] if rows else 'ID'} ends the oldest.",
    )
    query = text("SELECT count FROM information_schema.innodb_metrics WHERE name = 'trx_rseg_history_len'")
    length = int(conn.execute(query).scalar() or 0)
    yield judged(
        "history_length",
        f"{length:,} undo entries wait to be purged.",
        is_good=length <= HISTORY_MAX,
        why="Purge is behind, and claims walk over what was claimed before.",
        mend="End old transactions; raise innodb_purge_threads.",
    )


def _server(conn: Connection) -> Iterator[Finding]:
    variables = _variables(conn, "max_connections", "read_only")
    most = int(variables.get("max_connections", "0"))
    used = int(dict(_pairs(conn, "SHOW GLOBAL STATUS LIKE 'Threads_connected'"))["Threads_connected"])
    yield judged(
        "max_connections",
        f"{used} of {most} connections are in use.",
        is_good=used <= most * USED_SHARE_MAX,
        why="Beyond it a worker that starts, or a push, is refused.",
        mend="Raise max_connections, or use fewer processes; each worker holds three, and more while its jobs push.",
    )
    is_read_only = variables.get("read_only", "OFF").upper() not in ("OFF", "0")
    yield judged(
        "read_only",
        f"The server is {'' if is_read_only else 'not '}read-only.",
        is_good=not is_read_only,
        bad=Severity.ERROR,
        why="No push is taken and no result stored there (a user with all rights excepted).",
        mend="Give the URL of the primary.",
    )


def _encryption(conn: Connection) -> Iterator[Finding]:
    """PyMySQL encrypts where the server offers it, and goes on in plain text where it does not; older ones never do."""
    network = socket_of(raw_of(conn))
    host = "" if network is None else str(network.getpeername()[0])
    cipher = dict(_pairs(conn, "SHOW SESSION STATUS LIKE 'Ssl_cipher'"))["Ssl_cipher"]
    mend = "Add ssl_ca=FILE&ssl_verify_cert=true to the URL."
    yield encryption(host, is_encrypted=bool(cipher), mend=mend)


def looks(tables: Tables) -> list[Look]:
    """The looks, in order."""
    return [_durability, _locking, lambda conn: _tables(conn, tables), _transactions, _server, _encryption]


def _variables(conn: Connection, *names: str, scope: str = "GLOBAL") -> dict[str, str]:
    listed = ", ".join(f"'{name}'" for name in names)
    return dict(_pairs(conn, f"SHOW {scope} VARIABLES WHERE Variable_name IN ({listed})"))


def _pairs(conn: Connection, statement: str) -> Iterator[tuple[str, str]]:
    for name, value in conn.exec_driver_sql(statement):
        yield str(name), str(value)
