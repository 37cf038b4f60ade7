"""From a URL to a driver: what is loaded, and what is said when it cannot be."""

from __future__ import annotations

import importlib.metadata
import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest

from protojobs import create_driver
from protojobs._registry import masked
from protojobs.errors import ConfigurationError, DriverNotFound
from protojobs_memory import MemoryDriver


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[EntryPoint]]:
    """The entry points that seem to be installed, by group."""
    found: dict[str, list[EntryPoint]] = {}
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: found.get(group, []))
    return found


class TestCreateDriver:
    def test_the_scheme_picks_the_driver_and_options_reach_it(self) -> None:
        driver = create_driver("memory://", time_offset=3.0)
        assert isinstance(driver, MemoryDriver)
        assert driver.time_offset == 3.0

    @pytest.mark.parametrize(
        ("url", "extra"),
        [
            ("sqlite:///jobs.db", "sql"),
            ("postgresql+psycopg://db/app", "postgresql"),
            ("mysql://db/app", "mysql"),
            ("mariadb://db/app", "mysql"),
            ("redis://cache", "redis"),
            ("rediss://cache", "redis"),
            ("valkey://cache", "redis"),
            ("valkeys://cache", "redis"),
            ("memory://", "memory"),
        ],
    )
    def test_a_driver_that_is_not_installed_is_an_error_with_the_pip_install_to_type(
        self, installed: dict[str, list[EntryPoint]], url: str, extra: str
    ) -> None:
        with pytest.raises(DriverNotFound) as refusal:
            create_driver(url)
        assert f"pip install 'protojobs[{extra}]'" in str(refusal.value)

    def test_a_driver_whose_own_client_is_missing_names_the_extra_too(
        self, installed: dict[str, list[EntryPoint]]
    ) -> None:
        installed["protojobs.drivers"] = [EntryPoint("redis", "no_such_module_anywhere:Driver", "protojobs.drivers")]
        with pytest.raises(DriverNotFound, match=r"no_such_module_anywhere.*pip install 'protojobs\[redis\]'"):
            create_driver("redis://cache")

    def test_an_unknown_scheme_gets_a_suggestion_or_the_list_of_what_is_there(self) -> None:
        with pytest.raises(DriverNotFound, match='Did you mean "sqlite"'):
            create_driver("sqllite:///jobs.db")
        with pytest.raises(DriverNotFound, match="Installed: .*memory"):
            create_driver("kafka://broker")

    @pytest.mark.parametrize(
        "url", ["", "jobs.db", "sqlite:/jobs.db", "://", "://x", "user:secret@host", None, 3, b"x://"]
    )
    def test_what_is_no_url_is_refused_without_showing_a_password(self, url: object) -> None:
        with pytest.raises(DriverNotFound, match="URL") as refusal:
            create_driver(url)  # type: ignore[arg-type]  # what an unchecked caller may pass
        assert "secret" not in str(refusal.value)
        assert "sqlite:///jobs.db" in refusal.value.mend

    def test_a_driver_of_another_port_version_is_refused(
        self, installed: dict[str, list[EntryPoint]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module = ModuleType("future_driver")
        module.__dict__["Future"] = type("Future", (MemoryDriver,), {"port_version": 99})
        monkeypatch.setitem(sys.modules, "future_driver", module)
        installed["protojobs.drivers"] = [EntryPoint("memory", "future_driver:Future", "protojobs.drivers")]
        with pytest.raises(ConfigurationError, match="port version 99"):
            create_driver("memory://")

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("postgresql://jo:secret@db/app", "postgresql://jo:***@db/app"),
            ("redis://:secret@cache:6379/0", "redis://:***@cache:6379/0"),
            ("postgresql://jo:se@cr/et@db", "postgresql://jo:***@db"),
            ("mysql://db/app?user=jo&password=secret&x=1", "mysql://db/app?user=jo&password=***&x=1"),
            ("sqlite:///jobs.db", "sqlite:///jobs.db"),
            ("postgresql://jo@db/app", "postgresql://jo@db/app"),
        ],
    )
    def test_passwords_are_masked_wherever_a_url_is_shown(self, url: str, shown: str) -> None:
        assert masked(url) == shown
