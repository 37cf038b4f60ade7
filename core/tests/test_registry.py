"""From a URL to a driver: what is loaded, and what is said when it cannot be."""

from __future__ import annotations

import importlib.metadata
import sys
import traceback
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest

from protojobs import create_driver
from protojobs.errors import ConfigurationError, DriverNotFound
from protojobs.port.urls import masked, scrubbed
from protojobs_memory import MemoryDriver

REDIS = ("redis", "rediss", "valkey", "valkeys")
SERVERS = ("postgresql", "mysql", "mariadb", *REDIS)


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

    @pytest.mark.parametrize("url", ["redis://[::1", "valkey://x]", "memory://[::g]", "postgresql://h:port/db"])
    def test_what_a_library_makes_of_a_url_is_a_configuration_error(self, url: str) -> None:
        with pytest.raises(ConfigurationError):
            create_driver(url)

    @pytest.mark.parametrize("scheme", ["sqlite", "postgresql", "mysql", "redis", "valkey", "memory"])
    def test_a_url_that_is_no_text_is_refused_alike_for_every_driver(self, scheme: str) -> None:
        with pytest.raises(ConfigurationError, match="no text in UTF-8"):
            create_driver(f"{scheme}://\udcff")

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://shop:p@ss/wS3cret@db/app",
            "mysql://shop:S3@cret@db/app",
            "redis://:S3@cret@cache/0",
            "redis://:S3cret/x@cache/0",
        ],
    )
    def test_a_password_that_should_have_been_encoded_is_shown_in_no_part_and_the_mend_is_named(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="write %40 for @") as refusal:
            create_driver(url)
        assert "cret" not in str(refusal.value) and "S3" not in str(refusal.value)

    @pytest.mark.parametrize(
        ("url", "told"),
        [
            *(
                (f"{scheme}://shop:left@right/cret@db/0", '"{}://shop:***@db/0" has an @ too many.')
                for scheme in SERVERS
            ),
            *((f"{scheme}://shop:left/right@db/0", "'{}://shop:***@db/0' is not a Redis URL.") for scheme in REDIS),
            *((f"{scheme}://shop:left?right@db/0", "'{}://shop:***@db/0' is not a Redis URL.") for scheme in REDIS),
            *((f"{scheme}://shop:left?a=right@db/0", "'{}://shop:***@db/0' is not a Redis URL.") for scheme in REDIS),
            *((f"{scheme}://:12?right@db/0", "'{}://:***@db/0' is not a Redis URL.") for scheme in REDIS),
            *((f"{scheme}://shop:left#right@db/0", "'{}://shop:***@db/0' is not a Redis URL.") for scheme in REDIS),
        ],
    )
    def test_the_whole_message_for_a_password_that_should_have_been_encoded(self, url: str, told: str) -> None:
        with pytest.raises(ConfigurationError) as refusal:
            create_driver(url)
        assert str(refusal.value) == (
            f"{told.format(url.partition(':')[0])} In a user or a password write %40 for @, %3A for :, %2F for /, "
            "%3F for ?, %23 for # and %25 for %."
        )
        shown = "".join(traceback.format_exception(refusal.value.__cause__ or ValueError()))
        assert "left" not in shown and "right" not in shown

    @pytest.mark.parametrize("scheme", ["postgresql", "mysql", "mariadb", "redis", "valkey"])
    def test_a_slash_too_many_does_not_make_a_name_of_the_password(self, scheme: str) -> None:
        with pytest.raises(ConfigurationError, match="a slash too many") as refusal:
            create_driver(f"{scheme}:///u:S3cret@127.0.0.1:1/db")
        assert "S3cret" not in str(refusal.value)

    def test_a_slash_too_few_is_said_of_a_sqlite_url(self) -> None:
        with pytest.raises(ConfigurationError, match='a slash too few.*"sqlite:///jobs.db"'):
            create_driver("sqlite://jobs.db")

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("postgresql://jo:secret@db/app", "postgresql://jo:***@db/app"),
            ("redis://:secret@cache:6379/0", "redis://:***@cache:6379/0"),
            ("postgresql://jo:se@cr/et@db", "postgresql://jo:***@db"),
            ("mysql://db/app?user=jo&password=secret&x=1", "mysql://db/app?user=jo&password=***&x=1"),
            ("sqlite:///jobs.db", "sqlite:///jobs.db"),
            ("postgresql://jo@db/app", "postgresql://jo@db/app"),
            ("postgresql:///jo:secret@db/app", "postgresql:///jo:***@db/app"),
            ("mysql://db/app?passwd=secret", "mysql://db/app?passwd=***"),
            ("rediss://db/0?ssl_password=secret&x=1", "rediss://db/0?ssl_password=***&x=1"),
            ("redis://db:1/0?client_name=me@other", "redis://db:1/0?client_name=me@other"),
            ("valkeys+sentinel://a:1,[::1]:2/s/0?x=y@z", "valkeys+sentinel://a:1,[::1]:2/s/0?x=y@z"),
            ("redis://db:1/0?password=a@b&x=y@z", "redis://db:1/0?password=***&x=y@z"),
            ("redis://jo:se?cret=x@db", "redis://jo:***@db"),
            ("redis://:1?a=b@db:1/0?client_name=me@other", "redis://:***@other"),
            ("redis://jo:secret@db:1/0?client_name=me@other", "redis://jo:***@other"),
            ("postgresql://jo:1/0?a=b@db", "postgresql://jo:***@db"),  # to its library a password
        ],
    )
    def test_passwords_are_masked_wherever_a_url_is_shown(self, url: str, shown: str) -> None:
        assert masked(url) == shown

    @pytest.mark.parametrize(
        ("said", "shown"),
        [
            ('role "postgres" does not exist', 'role "postgres" does not exist'),
            ("port 56732 failed", "port 56732 failed"),
            ("password authentication failed for user jo", "password authentication failed for user jo"),
            ("cannot open postgresql://jo:secret@db/app now", "cannot open postgresql://jo:***@db/app now"),
            ("bad DSN: host=db password=secret port=5", "bad DSN: host=db password=*** port=5"),
            ("bad DSN: password='se cret' port=5", "bad DSN: password=*** port=5"),
        ],
    )
    def test_what_a_library_says_keeps_its_words_and_loses_its_passwords(self, said: str, shown: str) -> None:
        assert scrubbed(said) == shown
