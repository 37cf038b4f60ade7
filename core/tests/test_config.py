"""Where settings come from, which source wins, and what is said of a wrong one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from protojobs import JobQueue, Settings
from protojobs.config import load_settings, plugin_settings
from protojobs.errors import ConfigurationError, OptionInvalid


def load(folder: Path, given: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    return load_settings(given, environ=environ or {}, folder=folder)


class TestPrecedence:
    def test_without_any_source_the_documented_defaults_hold(self, tmp_path: Path) -> None:
        found = load(tmp_path)
        assert found == Settings()
        assert (found.default_queue, found.max_retries, found.retry_delay, found.timeout) == ("default", 3, 60.0, 60.0)
        assert (found.failed_job_retention, found.completed_job_retention) == (168.0, 24.0)

    def test_constructor_wins_over_environment_over_file_over_defaults(self, tmp_path: Path) -> None:
        (tmp_path / "protojobs.toml").write_text('max_retries = 1\ntimeout = 1\nretry_delay = 1\napp = ["shop"]')
        environ = {"PROTOJOBS_MAX_RETRIES": "2", "PROTOJOBS_TIMEOUT": "2"}
        found = load(tmp_path, {"max_retries": 3}, environ)
        assert (found.max_retries, found.timeout, found.retry_delay, found.app) == (3, 2.0, 1.0, ("shop",))

    def test_none_given_is_no_value(self, tmp_path: Path) -> None:
        assert load(tmp_path, {"max_retries": None}, {"PROTOJOBS_MAX_RETRIES": "2"}).max_retries == 2

    def test_an_unset_variable_is_no_value_and_lists_are_split_at_commas(self, tmp_path: Path) -> None:
        found = load(tmp_path, environ={"PROTOJOBS_APP": "shop.jobs,mail", "PROTOJOBS_CONCURRENCY": "2", "HOME": "/"})
        assert (found.app, found.concurrency, found.max_retries) == (("shop.jobs", "mail"), 2, 3)

    def test_an_empty_variable_is_no_value_either(self, tmp_path: Path) -> None:
        assert load(tmp_path, environ={"PROTOJOBS_TIMEOUT": ""}) == Settings()

    def test_a_queue_takes_a_mapping_or_settings(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PROTOJOBS_TIMEOUT", "7")
        monkeypatch.setenv("PROTOJOBS_URL", "memory://")
        assert JobQueue.from_config(max_retries=1).settings == Settings(url="memory://", timeout=7.0, max_retries=1)

    def test_without_a_url_from_config_says_where_to_put_one(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("PROTOJOBS_URL", raising=False)
        with pytest.raises(ConfigurationError, match="PROTOJOBS_URL"):
            JobQueue.from_config()


class TestFiles:
    def test_the_nearest_file_upward_is_read(self, tmp_path: Path) -> None:
        inner = tmp_path / "a" / "b"
        inner.mkdir(parents=True)
        (tmp_path / "protojobs.toml").write_text("max_retries = 1")
        assert load(inner).max_retries == 1
        (tmp_path / "a" / "pyproject.toml").write_text("[tool.protojobs]\nmax_retries = 2")
        assert load(inner).max_retries == 2

    @pytest.mark.parametrize(
        ("url", "meant"),
        [
            ("sqlite:///jobs.db", "sqlite:///{}/jobs.db"),
            ("sqlite+pysqlite:///data/jobs.db?timeout=3", "sqlite+pysqlite:///{}/data/jobs.db?timeout=3"),
            ("sqlite:///../jobs.db", "sqlite:///{}/../jobs.db"),
            ("sqlite:////srv/jobs.db", "sqlite:////srv/jobs.db"),
            ("sqlite:///C:/jobs.db", "sqlite:///C:/jobs.db"),
            ("sqlite:///:memory:", "sqlite:///:memory:"),
            ("sqlite:///file:jobs.db?uri=true", "sqlite:///file:jobs.db?uri=true"),
            ("sqlite://", "sqlite://"),
            ("postgresql:///app", "postgresql:///app"),
        ],
    )
    def test_a_relative_path_to_a_sqlite_file_is_one_from_the_files_folder(
        self, tmp_path: Path, url: str, meant: str
    ) -> None:
        inner = tmp_path / "a"
        inner.mkdir()
        (tmp_path / "protojobs.toml").write_text(f'url = "{url}"')
        assert load(inner).url == meant.format(tmp_path)
        assert load(tmp_path).url == url  # as it was written, for people
        assert load(inner, environ={"PROTOJOBS_URL": "sqlite:///jobs.db"}).url == "sqlite:///jobs.db"
        assert load(inner, {"url": "sqlite:///jobs.db"}).url == "sqlite:///jobs.db"

    def test_a_pyproject_without_our_table_is_passed_over(self, tmp_path: Path) -> None:
        inner = tmp_path / "a"
        inner.mkdir()
        (tmp_path / "protojobs.toml").write_text("max_retries = 1")
        for text in ("[tool.other]", "tool = 3", "not toml ["):
            (inner / "pyproject.toml").write_text(text)
            assert load(inner).max_retries == 1

    def test_protojobs_toml_wins_over_pyproject_beside_it(self, tmp_path: Path) -> None:
        (tmp_path / "protojobs.toml").write_text("max_retries = 1")
        (tmp_path / "pyproject.toml").write_text("[tool.protojobs]\nmax_retries = 2")
        assert load(tmp_path).max_retries == 1

    def test_a_broken_file_of_ours_is_an_error_that_names_it(self, tmp_path: Path) -> None:
        for content in (b"max_retries = ", b"\xff\xfe"):
            (tmp_path / "protojobs.toml").write_bytes(content)
            with pytest.raises(ConfigurationError, match=r"protojobs\.toml is not valid"):
                load(tmp_path)

    def test_a_table_that_is_none_is_an_error_that_says_so(self, tmp_path: Path) -> None:
        (tmp_path / "pyproject.toml").write_text("[tool]\nprotojobs = 3")
        with pytest.raises(ConfigurationError, match="table"):
            load(tmp_path)


class TestWrongSettings:
    def test_an_unknown_key_is_an_error_that_names_its_source_and_what_was_meant(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r'given: unknown setting "max_retrys".*"max_retries"'):
            load(tmp_path, {"max_retrys": 3})
        (tmp_path / "protojobs.toml").write_text("concurency = 3")
        with pytest.raises(ConfigurationError, match=r'protojobs\.toml: unknown setting "concurency".*"concurrency"'):
            load(tmp_path)

    def test_an_unknown_variable_close_to_a_setting_is_a_warning(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING):
            load(tmp_path, environ={"PROTOJOBS_CONCURENCY": "3", "PROTOJOBS_DASHBOARD_PORT": "1"})
        (record,) = caplog.records
        assert "PROTOJOBS_CONCURENCY" in record.getMessage()
        assert "concurrency" in record.getMessage()

    @pytest.mark.parametrize(
        "given",
        [
            {"max_retries": -1},
            {"max_retries": "3"},
            {"max_retries": 2.5},
            {"max_retries": True},
            {"timeout": -0.1},
            {"timeout": float("nan")},
            {"retry_delay": float("inf")},
            {"retry_delay": 10**400},
            {"default_queue": ""},
            {"default_queue": "a\x00"},
            {"concurrency": 0},
            {"lease": 0.5},
            {"poll_interval": 0},
            {"payload_bytes_max": 0},
            {"payload_bytes_max": 2**30},
            {"settle": "sometimes"},
            {"max_memory": -1},
            {"timezone": "Atlantis/Centre"},
            {"timezone": "../../etc/passwd"},
            {"app": 3},
            {"url": 3},
        ],
    )
    def test_a_value_of_the_wrong_type_or_out_of_range_is_a_configuration_error_that_names_the_key(
        self, tmp_path: Path, given: dict[str, object]
    ) -> None:
        with pytest.raises(ConfigurationError, match=next(iter(given))):
            load(tmp_path, given)

    @pytest.mark.parametrize(("name", "text"), [("MAX_RETRIES", "many"), ("TIMEOUT", "nan"), ("SETTLE", "x")])
    def test_a_variable_that_does_not_fit_is_a_configuration_error(self, tmp_path: Path, name: str, text: str) -> None:
        with pytest.raises(ConfigurationError, match=name.lower()):
            load(tmp_path, environ={f"PROTOJOBS_{name}": text})

    def test_an_error_of_range_is_also_an_option_error(self, tmp_path: Path) -> None:
        with pytest.raises(OptionInvalid):
            load(tmp_path, {"max_retries": -1})


class TestSettingsOfPlugins:
    class Bell(msgspec.Struct, frozen=True):
        sound: str
        loudness: int = 1

    class Mail(msgspec.Struct, frozen=True):
        port: int = 25
        to: tuple[str, ...] = ()
        mode: Literal["plain", "tls"] = "plain"

    def read(self, **environ: str) -> Mail | None:
        return plugin_settings("mail", self.Mail, environ=environ)

    def test_its_variables_are_read_by_the_types_of_its_fields(self) -> None:
        read = self.read(PROTOJOBS_MAIL_PORT="587", PROTOJOBS_MAIL_TO="a@b, c@d,", PROTOJOBS_MAIL_MODE="tls")
        assert read == self.Mail(port=587, to=("a@b", "c@d"), mode="tls")

    def test_none_where_not_one_is_set_or_each_is_empty(self) -> None:
        assert self.read(PROTOJOBS_MAIL_PORT="", PROTOJOBS_MAILBOX="x", PROTOJOBS_URL="sqlite://") is None

    def test_one_that_must_be_set_beside_others_is_named(self) -> None:
        assert plugin_settings("bell", self.Bell, environ={}) is None
        with pytest.raises(ConfigurationError, match="PROTOJOBS_BELL_SOUND is not set"):
            plugin_settings("bell", self.Bell, environ={"PROTOJOBS_BELL_LOUDNESS": "3"})

    def test_a_wrong_one_is_named_with_the_mend_and_without_what_it_holds(self) -> None:
        with pytest.raises(ConfigurationError, match=r'PROTOJOBS_MAIL_PROT.*"PROTOJOBS_MAIL_PORT"'):
            self.read(PROTOJOBS_MAIL_PROT="25")
        with pytest.raises(ConfigurationError, match="PROTOJOBS_MAIL_PORT does not fit") as refusal:
            self.read(PROTOJOBS_MAIL_PORT="hunter2")
        assert "hunter2" not in str(refusal.value)
        with pytest.raises(ConfigurationError, match="PROTOJOBS_MAIL_MODE.*Known: plain, tls"):
            self.read(PROTOJOBS_MAIL_MODE="ssl")
