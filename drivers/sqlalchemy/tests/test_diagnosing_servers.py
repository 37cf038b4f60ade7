"""What `protojobs doctor` finds in PostgreSQL and MariaDB alone: each finding provoked on a real server."""

from __future__ import annotations

import configparser
import contextlib
import time
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import URL, create_engine, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection

import servers
from protojobs.port.diagnosis import Finding, Severity
from protojobs_sqlalchemy import SQLAlchemyDriver, diagnosing
from protojobs_sqlalchemy.mariadb import diagnosis as diagnosing_mariadb
from protojobs_sqlalchemy.postgresql import diagnosis as diagnosing_postgresql

OK, NOTE, WARNING, ERROR = Severity.OK, Severity.NOTE, Severity.WARNING, Severity.ERROR
PROMISES = {"fsync": ERROR, "full_page_writes": ERROR, "synchronous_commit": WARNING}


def found(driver: SQLAlchemyDriver, code: str) -> Finding:
    (finding,) = [one for one in driver.diagnose() if one.code == code]
    return finding


def eventually(condition: Callable[[], object], limit: float = 20.0) -> None:
    ends = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < ends, f"this did not happen within {limit} s"
        time.sleep(0.1)


def execute(driver: SQLAlchemyDriver, *statements: str) -> None:
    with driver.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        for statement in statements:
            conn.execute(text(statement))


@pytest.fixture(scope="module")
def postgresql(postgresql_url: str) -> Iterator[SQLAlchemyDriver]:
    with migrated(postgresql_url) as driver:
        yield driver


@pytest.fixture(scope="module")
def mariadb(mariadb_url: str) -> Iterator[SQLAlchemyDriver]:
    with migrated(mariadb_url) as driver:
        yield driver


@contextlib.contextmanager
def migrated(url: str) -> Iterator[SQLAlchemyDriver]:
    """One for all tests here: to make the tables takes longer than to look at them."""
    driver = SQLAlchemyDriver(url)
    driver.teardown()
    driver.setup()
    try:
        yield driver
    finally:
        driver.teardown()
        driver.close()


@contextlib.contextmanager
def saying(driver: SQLAlchemyDriver, statement: str) -> Iterator[SQLAlchemyDriver]:
    """Another driver of the same database, each of whose connections begins with this statement."""

    def begin(raw: DBAPIConnection, _record: object) -> None:
        raw.cursor().execute(statement)
        raw.commit()

    other = SQLAlchemyDriver(driver.engine.url)
    event.listen(other._connections.engine, "connect", begin)
    yield other
    other.close()


# ------------------------------------------------------------------------------------------------ both


@pytest.mark.parametrize(
    ("host", "local"),
    [("", True), ("/run/postgresql", True), ("@abstract", True), ("127.0.0.1", True), ("::1", True)]
    + [("10.0.0.5", False), ("fe80::1%eth0", False), ("db.example", False)],
)
def test_a_socket_and_a_loopback_address_stay_on_this_machine(host: str, *, local: bool) -> None:
    assert diagnosing.is_local(host) is local


@pytest.mark.parametrize(("store", "option"), [("postgresql", "sslmode=disable"), ("mariadb", "ssl_disabled=true")])
def test_a_plain_connection_to_another_machine_is_told(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, store: str, option: str
) -> None:
    url = request.getfixturevalue(store).engine.url
    driver = SQLAlchemyDriver(url.update_query_string(option))
    assert found(driver, "encryption").severity is OK
    monkeypatch.setattr(diagnosing, "is_local", lambda host: host != "127.0.0.1")
    finding = found(driver, "encryption")
    assert (finding.severity, "127.0.0.1 is not encrypted" in finding.what) == (WARNING, True)
    driver.close()


def test_an_encrypted_connection_to_another_machine_is_fine(
    mariadb: SQLAlchemyDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosing, "is_local", lambda _host: False)
    assert found(mariadb, "encryption").severity is OK  # with the certificate that the server made for itself
    assert "is encrypted" in found(mariadb, "encryption").what


# ------------------------------------------------------------------------------------------------ PostgreSQL


@pytest.mark.parametrize(
    ("code", "statement", "severity"),
    [
        ("synchronous_commit", "SET synchronous_commit = off", WARNING),
        ("synchronous_commit", "SET synchronous_commit = on", OK),
        ("isolation_level", "SET default_transaction_isolation = 'serializable'", WARNING),
        ("isolation_level", "SET default_transaction_isolation = 'read committed'", OK),
        ("read_only", "SET default_transaction_read_only = on", ERROR),
    ],
)
def test_a_setting_of_postgresqls_sessions(
    postgresql: SQLAlchemyDriver, code: str, statement: str, severity: Severity
) -> None:
    with saying(postgresql, statement) as driver:
        assert found(driver, code).severity is severity


def test_a_postgresql_server_of_bad_habits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosing_postgresql, "OLD_TRANSACTION_S", 0.05)
    with servers.started("postgresql", is_durable=True) as server:  # one for all: its settings are for the server whole
        driver = SQLAlchemyDriver(servers.create_database(server.url, "habits"))
        driver.setup()
        assert {code: found(driver, code).severity for code in PROMISES} == dict.fromkeys(PROMISES, OK)
        execute(driver, *[f"ALTER SYSTEM SET {code} = off" for code in PROMISES])
        execute(driver, "ALTER SYSTEM SET max_prepared_transactions = 5")
        driver.close()
        server.restart()
        assert {code: found(driver, code).severity for code in PROMISES} == PROMISES

        execute(driver, "BEGIN", "SELECT 1 FROM jobs FOR UPDATE", "PREPARE TRANSACTION 'half-done'")
        eventually(lambda: found(driver, "old_transaction").severity is WARNING)
        assert "prepared transaction half-done" in found(driver, "old_transaction").what
        assert found(driver, "replication_slots").severity is OK
        execute(driver, "ROLLBACK PREPARED 'half-done'", "SELECT pg_create_physical_replication_slot('gone', true)")
        finding = found(driver, "replication_slots")
        assert (finding.severity, "gone" in finding.what) == (WARNING, True)
        driver.close()


def test_a_transaction_that_stays_open(postgresql: SQLAlchemyDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(postgresql, "old_transaction").severity is OK
    monkeypatch.setattr(diagnosing_postgresql, "OLD_TRANSACTION_S", 0.05)
    engine = create_engine(postgresql.engine.url, connect_args={"application_name": "shop-report"})
    with engine.connect() as conn:
        pid = conn.execute(text("SELECT pg_backend_pid()")).scalar_one()
        eventually(lambda: found(postgresql, "old_transaction").severity is WARNING)
        finding = found(postgresql, "old_transaction")
    assert f"process {pid} of " in finding.what
    assert "(shop-report), idle in transaction" in finding.what
    assert f"pg_terminate_backend({pid})" in finding.mend
    engine.dispose()


def test_what_a_user_without_rights_may_not_see(postgresql: SQLAlchemyDriver) -> None:
    name = str(postgresql.engine.url.database)
    role = f"{name}_reader"
    execute(postgresql, f"CREATE ROLE {role} LOGIN PASSWORD 'x'", f"GRANT pg_read_all_data TO {role}")
    weak = SQLAlchemyDriver(postgresql.engine.url.set(username=role, password="x"))
    with postgresql.engine.connect() as conn:
        conn.execute(text("SELECT 1"))
        assert found(weak, "sessions_hidden").severity is NOTE
    weak.close()
    execute(postgresql, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_rows_that_vacuum_does_not_take_away(postgresql: SQLAlchemyDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosing_postgresql, "DEAD_MAX", 500)
    execute(
        postgresql,
        "ALTER TABLE counters SET (autovacuum_enabled = false)",
        "INSERT INTO counters SELECT 'q', 'failed', n, 0 FROM generate_series(1, 300) n",
    )
    with postgresql.engine.connect().execution_options(isolation_level="REPEATABLE READ") as reader:
        reader.execute(text("SELECT count(*) FROM counters"))  # while it may read the old rows, nobody takes them away
        execute(postgresql, *["UPDATE counters SET count = count + 1"] * 3)
        eventually(lambda: found(postgresql, "dead_rows").severity is WARNING)
        finding = found(postgresql, "dead_rows")
    assert "counters: 900 dead" in finding.what
    assert "VACUUM (ANALYZE) counters" in finding.mend
    execute(postgresql, "VACUUM counters", "ALTER TABLE counters RESET (autovacuum_enabled)", "DELETE FROM counters")
    eventually(lambda: found(postgresql, "dead_rows").severity is OK)


def test_vacuum_that_is_switched_off(postgresql: SQLAlchemyDriver) -> None:
    assert found(postgresql, "autovacuum").severity is OK
    execute(postgresql, "ALTER TABLE jobs SET (autovacuum_enabled = false)")
    finding = found(postgresql, "autovacuum")
    assert (finding.severity, "for jobs" in finding.what) == (WARNING, True)
    execute(postgresql, finding.mend)
    assert found(postgresql, "autovacuum").severity is OK


def test_an_index_that_was_never_finished(postgresql: SQLAlchemyDriver) -> None:
    assert found(postgresql, "indexes_invalid").severity is OK
    execute(
        postgresql,
        "INSERT INTO failed_jobs SELECT gen_random_uuid(), gen_random_uuid(), 'q', 'c', 'same', '1', 1, 'e', now()"
        " FROM generate_series(1, 2)",
    )
    with contextlib.suppress(Exception):  # a duplicate breaks it off, and leaves the index behind
        execute(postgresql, "CREATE UNIQUE INDEX CONCURRENTLY half_made ON failed_jobs (job_name)")
    finding = found(postgresql, "indexes_invalid")
    assert (finding.severity, "half_made" in finding.what) == (ERROR, True)
    execute(postgresql, "DROP INDEX half_made", "DELETE FROM failed_jobs")


def test_an_index_of_somebody_else_that_is_used_or_not(postgresql: SQLAlchemyDriver) -> None:
    execute(postgresql, 'CREATE INDEX "Shop class" ON jobs (job_class)')
    finding = found(postgresql, "indexes_other")
    assert finding.severity is WARNING
    assert finding.mend == 'DROP INDEX CONCURRENTLY "Shop class"'
    execute(postgresql, "SELECT id FROM jobs WHERE job_class = 'x' ORDER BY job_class")
    eventually(lambda: found(postgresql, "indexes_other").severity is NOTE)
    execute(postgresql, 'DROP INDEX "Shop class"')


def test_connections_that_are_nearly_used_up(postgresql: SQLAlchemyDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(postgresql, "max_connections").severity is OK
    monkeypatch.setattr(diagnosing_postgresql, "USED_SHARE_MAX", 0.0)
    assert found(postgresql, "max_connections").severity is WARNING


@contextlib.contextmanager
def pgbouncer(url: URL) -> Iterator[URL]:
    """PgBouncer in transaction mode before this database: Debian's, unpacked."""
    root = servers.unpacked("pgbouncer", ["pgbouncer"], "usr/sbin/pgbouncer")
    libraries = [folder for folder in (root / "usr/lib", root / "lib") if folder.exists()]
    paths = sorted({str(file.parent) for folder in libraries for file in folder.rglob("*.so.*")})
    port = servers.free_port()
    with servers.scratch_folder("pgbouncer") as scratch:
        settings = configparser.ConfigParser(interpolation=None)
        settings["databases"] = {"*": f"host={url.host} port={url.port} user={url.username} password={url.password}"}
        settings["pgbouncer"] = {
            "listen_addr": "127.0.0.1", "listen_port": str(port), "unix_socket_dir": "", "auth_type": "any",
            "pool_mode": "transaction", "ignore_startup_parameters": "options",
        }  # fmt: skip
        file = scratch / "pgbouncer.ini"
        with file.open("w") as out:
            settings.write(out)
        if servers.IS_ROOT:
            servers.os.chown(file, servers.NOBODY, servers.NOBODY)
        environment = servers.clean_environment(scratch, LD_LIBRARY_PATH=":".join(paths))
        pooled = url.set(host="127.0.0.1", port=port)
        server = servers.launch(
            "postgresql", [root / "usr/sbin/pgbouncer", file], environment, scratch,
            pooled.render_as_string(hide_password=False), "pgbouncer",
        )  # fmt: skip
        try:
            yield pooled
        finally:
            server.stop()


def test_a_pooler_in_transaction_mode(postgresql: SQLAlchemyDriver) -> None:
    assert found(postgresql, "pooler").severity is OK
    assert found(postgresql, "doorbell").severity is OK
    with pgbouncer(postgresql.engine.url) as pooled:
        unaware = SQLAlchemyDriver(pooled)
        assert found(unaware, "pooler").severity is ERROR
        assert found(unaware, "doorbell").severity is WARNING
        unaware.close()
        aware = SQLAlchemyDriver(pooled, is_pooled=True)
        assert found(aware, "pooler").severity is OK
        assert found(aware, "doorbell").severity is NOTE
        aware.close()
        whole = SQLAlchemyDriver(pooled, is_pooled=True, listen_url=str(postgresql.engine.url))
        assert found(whole, "doorbell").severity is OK
        whole.close()


# ------------------------------------------------------------------------------------------------ MariaDB


@pytest.mark.parametrize(
    ("code", "statement", "severity"),
    [
        ("transaction_isolation", "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE", WARNING),
        ("innodb_lock_wait_timeout", "SET SESSION innodb_lock_wait_timeout = 50", WARNING),
        ("innodb_lock_wait_timeout", "SET SESSION innodb_lock_wait_timeout = 3", OK),
    ],
)
def test_a_setting_of_mariadbs_sessions(
    mariadb: SQLAlchemyDriver, code: str, statement: str, severity: Severity
) -> None:
    with saying(mariadb, statement) as driver:
        assert found(driver, code).severity is severity


def test_a_mariadb_server_of_bad_habits(monkeypatch: pytest.MonkeyPatch) -> None:
    habits = {
        "innodb_flush_log_at_trx_commit": ("1", "2", WARNING),
        "innodb_doublewrite": ("ON", "OFF", WARNING),
        "innodb_deadlock_detect": ("ON", "OFF", WARNING),
        "sync_binlog": ("1", "0", WARNING),
        "binlog_format": ("'MIXED'", "'STATEMENT'", ERROR),
        "max_allowed_packet": (str(64 << 20), str(1 << 20), WARNING),
        "read_only": ("OFF", "ON", ERROR),
    }
    launch: Callable[..., servers.Server] = servers.launch

    def launch_with_log(kind: str, command: list[object], *rest: object) -> servers.Server:
        return launch(kind, [*[word for word in command if word != "--skip-log-bin"], "--log-bin"], *rest)

    monkeypatch.setattr(servers, "launch", launch_with_log)
    with servers.started("mariadb", is_durable=True) as server:  # one for all, as above
        driver = SQLAlchemyDriver(servers.create_database(server.url, "habits"))
        driver.setup()
        for place, severity in ((1, None), (0, OK)):
            execute(driver, *[f"SET GLOBAL {code} = {values[place]}" for code, values in habits.items()])
            driver.close()
            findings = {one.code: one.severity for one in driver.diagnose()}
            wanted = {code: severity if severity is not None else values[2] for code, values in habits.items()}
            assert {code: findings[code] for code in habits} == wanted
        driver.close()


def test_names_that_are_not_compared_byte_by_byte(mariadb: SQLAlchemyDriver) -> None:
    assert found(mariadb, "collation").severity is OK
    execute(
        mariadb,
        "ALTER TABLE failed_jobs MODIFY job_name varchar(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"
        " NOT NULL",
    )
    finding = found(mariadb, "collation")
    assert (finding.severity, "failed_jobs.job_name (utf8mb4_general_ci)" in finding.what) == (ERROR, True)


def test_a_table_without_transactions(mariadb: SQLAlchemyDriver) -> None:
    assert found(mariadb, "engine").severity is OK
    execute(mariadb, "ALTER TABLE queues ENGINE = MyISAM")
    finding = found(mariadb, "engine")
    assert finding.severity is ERROR
    execute(mariadb, finding.mend)
    assert found(mariadb, "engine").severity is OK


def test_a_transaction_that_stays_open_in_mariadb(mariadb: SQLAlchemyDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(mariadb, "old_transaction").severity is OK
    monkeypatch.setattr(diagnosing_mariadb, "OLD_TRANSACTION_S", 0)
    engine = create_engine(mariadb.engine.url)
    with engine.connect() as conn:
        number = conn.execute(text("SELECT connection_id()")).scalar_one()
        conn.execute(text("SELECT * FROM jobs FOR UPDATE"))
        # Others may have older ones: the server is shared with tests that run beside this one.
        eventually(lambda: f"connection {number} of " in found(mariadb, "old_transaction").what)
        finding = found(mariadb, "old_transaction")
        assert finding.severity is WARNING
        assert "KILL " in finding.mend
    engine.dispose()


@pytest.mark.parametrize(("code", "bound"), [("history_length", "HISTORY_MAX"), ("max_connections", "USED_SHARE_MAX")])
def test_what_has_a_bound_in_mariadb(
    mariadb: SQLAlchemyDriver, monkeypatch: pytest.MonkeyPatch, code: str, bound: str
) -> None:
    assert found(mariadb, code).severity is OK
    monkeypatch.setattr(diagnosing_mariadb, bound, -1)
    assert found(mariadb, code).severity is WARNING
