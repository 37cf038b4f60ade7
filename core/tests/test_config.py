"""Where settings come from, which source wins, and what is said of a wrong one."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Literal

import msgspec
import pytest

from protojobs import JobQueue, Settings
from protojobs.config import load_settings, plugin_settings, settings_file
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

    def test_a_driver_may_say_that_its_urls_name_a_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        module = ModuleType("file_drivers")
        module.__dict__.update(Says=type("Says", (), {"url_names_file": True}), Silent=type("Silent", (), {}))
        monkeypatch.setitem(sys.modules, "file_drivers", module)
        known = [EntryPoint(name.lower(), f"file_drivers:{name}", "protojobs.drivers") for name in ("Says", "Silent")]
        known.append(EntryPoint("broken", "no_such_module_anywhere:X", "protojobs.drivers"))
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: known)
        inner = tmp_path / "a"
        inner.mkdir()
        for scheme, is_resolved in (("says", True), ("silent", False), ("broken", False), ("unknown", False)):
            (tmp_path / "protojobs.toml").write_text(f'url = "{scheme}:///data/jobs?x=1"')
            path = f"{tmp_path}/data/jobs" if is_resolved else "data/jobs"
            assert load(inner).url == f"{scheme}:///{path}?x=1"

    def test_a_file_in_utf_8_with_a_byte_order_mark_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "protojobs.toml").write_bytes(b"\xef\xbb\xbfmax_retries = 1")
        assert load(tmp_path).max_retries == 1

    def test_a_file_that_is_nested_too_deep_is_no_valid_toml(self, tmp_path: Path) -> None:
        (tmp_path / "protojobs.toml").write_text("app = " + "[" * 50_000)
        with pytest.raises(ConfigurationError, match=r"protojobs\.toml is not valid TOML"):
            load(tmp_path)

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


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows keeps no owners of this kind")
class TestFilesOfOthers:
    """Whoever may write a settings file has code run by whoever types a command below it."""

    @pytest.fixture
    def inner(self, tmp_path: Path) -> Path:
        (tmp_path / "protojobs.toml").write_text('max_retries = 1\nplugins = ["helpful"]')
        inner = tmp_path / "a" / "b"
        inner.mkdir(parents=True)
        return inner

    def test_one_above_that_belongs_to_somebody_else_is_passed_over_with_a_warning(
        self, tmp_path: Path, inner: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        owned_by(monkeypatch, {tmp_path / "protojobs.toml": os.geteuid() + 1})
        settings = load(inner)
        assert (settings.max_retries, settings.plugins) == (3, ())
        assert settings_file(inner) is None
        assert caplog.text.count("belongs to another user") == 1

    def test_one_of_root_or_of_the_owner_of_the_current_folder_is_obeyed(
        self, tmp_path: Path, inner: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        somebody = os.geteuid() + 1
        owned_by(monkeypatch, {tmp_path / "protojobs.toml": 0})
        assert load(inner).max_retries == 1
        owned_by(monkeypatch, {tmp_path / "protojobs.toml": somebody, inner: somebody})
        assert load(inner).max_retries == 1

    @pytest.mark.parametrize("name", ["protojobs.toml", "."])
    def test_one_above_that_everybody_may_write_beside_is_passed_over(
        self, tmp_path: Path, inner: Path, name: str
    ) -> None:
        (tmp_path / name).chmod(0o777)
        assert load(inner).max_retries == 3
        assert load(tmp_path).max_retries == 1  # whoever works in a folder runs what is in there

    def test_a_link_of_somebody_else_s_to_a_file_of_our_own_is_passed_over(
        self, tmp_path: Path, inner: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        link = tmp_path / "a" / "protojobs.toml"
        link.symlink_to(tmp_path / "protojobs.toml")
        assert settings_file(inner) == link
        owned_by(monkeypatch, {link: os.geteuid() + 1})
        assert settings_file(inner) == tmp_path / "protojobs.toml"

    @pytest.mark.parametrize("border", [".git", ".hg", ".svn"])
    def test_what_is_above_a_repository_is_not_looked_at(self, tmp_path: Path, inner: Path, border: str) -> None:
        (tmp_path / "a" / border).mkdir()
        assert settings_file(inner) is None
        (tmp_path / "a" / "protojobs.toml").write_text("max_retries = 2")
        assert load(inner).max_retries == 2

    def test_what_is_above_a_file_system_is_not_looked_at(
        self, tmp_path: Path, inner: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        devices = {inner: 1, inner.parent: 1, tmp_path: 2}
        stat = Path.stat
        monkeypatch.setattr(
            Path,
            "stat",
            lambda self, **how: os.stat_result(replaced(stat(self, **how), 2, devices.get(self, 2))),
        )
        assert settings_file(inner) is None


def owned_by(monkeypatch: pytest.MonkeyPatch, owners: dict[Path, int]) -> None:
    """Let these paths, and not what they link to, seem to belong to somebody: only root can give files away."""
    stat = Path.stat

    def of(self: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        found = stat(self, follow_symlinks=follow_symlinks)
        path = Path(os.path.realpath(self)) if follow_symlinks else self
        return os.stat_result(replaced(found, 4, owners.get(path, found.st_uid)))

    monkeypatch.setattr(Path, "stat", of)


def replaced(found: os.stat_result, place: int, value: int) -> list[int]:
    return [value if index == place else field for index, field in enumerate(found[:10])]


class TestWrongSettings:
    @pytest.mark.parametrize("url", [["postgresql://u:S3cret@h/db"], {"url": "postgresql://u:S3cret@h/db"}])
    def test_a_url_of_a_wrong_type_is_named_with_its_type_and_not_shown(self, tmp_path: Path, url: object) -> None:
        with pytest.raises(ConfigurationError, match=f"url of type {type(url).__name__}") as refusal:
            load(tmp_path, {"url": url})
        assert "S3cret" not in str(refusal.value)

    def test_a_slip_in_one_schedule_names_it_and_shows_no_data(self, tmp_path: Path) -> None:
        (tmp_path / "protojobs.toml").write_text(
            '[schedules.good]\njob = "a"\ncron = "* * * * *"\ndata = {token = "S3cret"}\n'
            '[schedules.nightly]\njob = "a"\ncorn = "* * * * *"\ndata = {token = "S3cret"}\n'
        )
        with pytest.raises(
            ConfigurationError, match=r"protojobs\.toml: schedules\.nightly: unknown key 'corn'\. Did you mean \"cron\""
        ) as refusal:
            load(tmp_path)
        assert "S3cret" not in str(refusal.value)
        for table, why in (({"job": 3, "data": "S3cret"}, r"schedules\.x does not fit.*job"), ("S3cret", "no table")):
            with pytest.raises(ConfigurationError, match=why) as refusal:
                load(tmp_path.parent, {"schedules": {"x": table}})
            assert "S3cret" not in str(refusal.value)

    def test_a_variable_that_is_no_text_is_a_configuration_error(self, tmp_path: Path) -> None:
        for name in ("MAX_RETRIES", "TIMEOUT", "EXECUTOR"):
            with pytest.raises(ConfigurationError, match=name.lower()):
                load(tmp_path, environ={f"PROTOJOBS_{name}": "\udcff"})

    def test_blanks_around_the_names_of_a_list_are_none(self, tmp_path: Path) -> None:
        settings = load(tmp_path, environ={"PROTOJOBS_APP": " a, b ,", "PROTOJOBS_PLUGINS": "x , y"})
        assert (settings.app, settings.plugins) == (("a", "b"), ("x", "y"))

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
