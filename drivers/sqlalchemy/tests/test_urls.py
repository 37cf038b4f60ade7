"""What cannot work is told at once, in our words, without the password."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine

import servers
from protojobs.errors import ConfigurationError, DriverNotFound, OptionInvalid, ProtojobsError, StoreUnavailable
from protojobs_sqlalchemy import SQLAlchemyDriver


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
