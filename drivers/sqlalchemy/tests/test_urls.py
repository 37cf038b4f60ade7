"""What cannot work is told at once, in our words, without the password."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine

import servers
from protojobs.errors import ConfigurationError, DriverNotFound, OptionInvalid, ProtojobsError, StoreUnavailable
from protojobs_sqlalchemy import SQLAlchemyDriver
from protojobs_sqlalchemy.connecting.urls import masked, parse, same_address


@pytest.mark.parametrize(
    "url", ["", "jobs.db", "postgresql//user:secret@host/app", "postgresql://u:secret@host:port/app"]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SQLAlchemyDriver(url)
    assert "secret" not in str(caught.value)


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(DriverNotFound, match="oracle"):
        SQLAlchemyDriver("oracle://user@host/app")


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"]
)
def test_sqlite_in_memory_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="memory"):
        SQLAlchemyDriver(url)


def test_an_engine_on_sqlite_in_memory_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="memory"):
        SQLAlchemyDriver(create_engine("sqlite://"))


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere"):
        SQLAlchemyDriver(f"sqlite:///{tmp_path / 'nowhere' / 'jobs.db'}")


def test_a_relative_path_stays_where_it_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    driver = SQLAlchemyDriver("sqlite:///jobs.db")
    monkeypatch.chdir("/")
    driver.setup()
    driver.close()
    assert (tmp_path / "jobs.db").exists()


def test_nothing_is_opened_before_the_first_verb(tmp_path: Path) -> None:
    SQLAlchemyDriver(f"sqlite:///{tmp_path / 'jobs.db'}").close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "dbapi"),
    [
        ("sqlite+aiosqlite:////tmp/jobs.db", "sqlite+pysqlite"),
        ("postgresql+asyncpg://user@host/app", "postgresql+psycopg"),
        ("mysql+asyncmy://user@host/app", "mysql+pymysql"),
        ("mariadb://user@host/app", "mariadb+pymysql"),
    ],
)
def test_the_driver_chooses_its_own_dbapi(url: str, dbapi: str) -> None:
    assert SQLAlchemyDriver.from_url(url).engine.url.drivername == dbapi


@pytest.mark.parametrize(("scheme", "module"), [("postgresql", "psycopg"), ("mysql", "pymysql")])
def test_a_missing_module_is_told_with_what_to_type(scheme: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DriverNotFound, match=rf'pip install "protojobs\[{scheme}\]"'):
        SQLAlchemyDriver(f"{scheme}://user@host/app")


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_server_that_does_not_answer_is_told_without_the_password(scheme: str) -> None:
    driver = SQLAlchemyDriver(f"{scheme}://user:s3cret@127.0.0.1:{servers.free_port()}/app")
    with pytest.raises(StoreUnavailable) as caught:
        driver.stats()
    assert "s3cret" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)
    assert "s3cret" not in repr(driver)
    assert driver.wait(["q"], 0.05) is False


def test_options_that_the_dbapi_does_not_know_are_told() -> None:
    with pytest.raises(ProtojobsError, match="colour"):
        SQLAlchemyDriver("postgresql://user@127.0.0.1:1/app?colour=blue").stats()


def test_an_engine_on_another_dbapi_is_refused() -> None:
    engine = create_engine("sqlite:////tmp/jobs.db")
    engine.dialect.driver = "pysqlcipher"
    with pytest.raises(OptionInvalid, match="pysqlcipher"):
        SQLAlchemyDriver(engine)


def test_what_is_neither_url_nor_engine_is_refused() -> None:
    with pytest.raises(OptionInvalid, match="int"):
        SQLAlchemyDriver(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


SEVERAL = {"host": "one,two", "port": "5001,5432", "dbname": "app", "target_session_attrs": "read-write"}


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://one:5001,two/app",
        "postgresql+asyncpg://one:5001,two:5432/app?target_session_attrs=read-write",
        "postgresql:///app?host=one:5001,two",
        "postgresql:///app?host=one:5001&host=two:5432",
        "postgresql:///app?host=one,two&port=5001,5432",
    ],
)
def test_several_hosts_of_postgresql_may_be_written_in_each_of_the_usual_ways(url: str) -> None:
    parsed = parse(url)
    dialect = SQLAlchemyDriver(url).engine.dialect
    assert dialect.create_connect_args(parsed)[1].items() >= SEVERAL.items()
    assert masked(parsed) == "postgresql://one:5001,two:5432/app?target_session_attrs=read-write"


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("postgresql://[::1]:5001,[fe80::2]/app", "::1,fe80::2", "5001,5432"),
        ("postgresql:///app?host=/run/one:5001,/run/two", "/run/one,/run/two", "5001,5432"),
        ("postgresql:///app?host=one,two&port=5001", "one,two", "5001,5001"),
    ],
)
def test_a_host_may_be_an_address_or_the_folder_of_a_socket(url: str, host: str, port: str) -> None:
    assert (parse(url).query["host"], parse(url).query["port"]) == (host, port)


def test_the_password_of_several_hosts_is_shown_nowhere() -> None:
    driver = SQLAlchemyDriver("postgresql://user:s3cret@127.0.0.1:1,127.0.0.1:2/app")
    assert repr(driver) == (
        "<SQLAlchemyDriver postgresql://user:***@127.0.0.1:1,127.0.0.1:2/app?target_session_attrs=read-write>"
    )
    with pytest.raises(StoreUnavailable) as caught:
        driver.stats()
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgresql", "mysql", "mariadb"])
@pytest.mark.parametrize("sign", "/?#:%")
def test_a_password_that_is_unmistakable_is_taken_as_it_is_and_shown_nowhere(scheme: str, sign: str) -> None:
    url = f"{scheme}://shop:left{sign}right@db/app"
    assert (parse(url).password, parse(url).host, parse(url).database) == (f"left{sign}right", "db", "app")
    driver = SQLAlchemyDriver(url)
    driver.close()
    assert repr(driver) == f"<SQLAlchemyDriver {scheme}://shop:***@db/app>"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://one:5001,two:port/app", '"port" is no port'),
        ("postgresql://one:5001,two:99999/app", '"99999" is no port'),
        ("postgresql://one,,two/app", "a host without a name"),
        ("postgresql://one,[::2/app", '"[::2" is no host'),
        ("postgresql:///app?host=one,two,three&port=1,2", "3 hosts and 2 ports"),
        ("postgresql://one,two/app?host=three", "before its path and after it"),
        ("postgresql://user:se@cret,one@two/app", "an @ too many"),
        ("postgresql://one,two/app?target_session_attrs=standby", "take no writes"),
        ("mysql://one,two/app", "only PostgreSQL"),
    ],
)
def test_what_is_no_list_of_hosts_is_refused_with_the_place(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SQLAlchemyDriver(url)
    assert says in str(caught.value)
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("postgresql://one,two/app", "postgresql:///app?host=two:5432,one", True),
        ("postgresql://one,two/app", "postgresql://one/app", False),
        ("postgresql:///app?host=/run/one", "postgresql:///app?host=/run/two", False),
        ("postgresql://one/app", "postgresql://one:5432/app", True),
        ("postgresql://one/app?options=-csearch_path%3Da", "postgresql://one/app?options=-csearch_path%3Da", True),
        ("postgresql://one/app?options=-csearch_path%3Da", "postgresql://one/app", False),
        ("postgresql://ada@one/app", "postgresql://bob@one/app", False),
    ],
)
def test_two_urls_lead_to_the_same_tables_when_they_name_the_same_hosts_user_and_options(
    one: str, other: str, is_same: bool
) -> None:
    assert same_address(parse(one), parse(other)) is is_same


@pytest.mark.parametrize(("option", "meant"), [("nosuch", ""), ("passwords", "password"), ("charsett", "charset")])
def test_an_option_that_pymysql_does_not_know_is_a_configuration_error(option: str, meant: str) -> None:
    with pytest.raises(ConfigurationError, match=f'an option that there is not: "{option}"') as refusal:
        SQLAlchemyDriver(f"mysql://app@127.0.0.1:1/app?{option}=S3cret")
    assert meant in refusal.value.mend
    if meant == "password":
        assert "S3cret" not in str(refusal.value)


@pytest.mark.parametrize("option", ["password", "passwd"])
def test_a_password_among_the_options_is_never_shown(option: str) -> None:
    driver = SQLAlchemyDriver(f"mysql://app@127.0.0.1:1/app?{option}=S3cret")
    assert "S3cret" not in repr(driver)
    with pytest.raises(StoreUnavailable) as refusal:
        driver.now()
    assert "S3cret" not in str(refusal.value)


@pytest.mark.parametrize("password", ["postgres", "p", "failed"])
def test_what_the_database_says_keeps_its_words_whatever_the_password_is(password: str) -> None:
    driver = SQLAlchemyDriver(f"postgresql://postgres:{password}@127.0.0.1:1/postgres")
    with pytest.raises(StoreUnavailable, match="port 1 failed"):
        driver.now()


def test_another_library_in_the_url_is_said_and_ours_is_not(caplog) -> None:
    for url in ("postgresql+asyncpg://u:secret@host/app", "postgresql+psycopg://host/app", "sqlite+pysqlite:///x.db"):
        parse(url)
    assert [record.getMessage() for record in caplog.records] == [
        "postgresql+asyncpg:// is read as postgresql://: protojobs connects by psycopg"
    ]
