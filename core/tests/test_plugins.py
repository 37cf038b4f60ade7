"""From the names of plugins to hooks: what is loaded, what is left out, and what nothing goes on without."""

from __future__ import annotations

import importlib.metadata
import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest

from protojobs import Job, JobQueue, Settings, hookimpl
from protojobs.doctor import examine
from protojobs.errors import ConfigurationError
from protojobs.events import Event
from protojobs.hooks.installed_plugins import load_hooks
from protojobs.port.diagnosis import Finding
from protojobs_memory import MemoryDriver


class Echo(Job):
    name = "plugins.echo"

    def handle(self, data: dict[str, object]) -> object:
        return data


class Misspelt:
    @hookimpl
    def protojobs_befor_push(self, job: object) -> None: ...


class Awaited:
    @hookimpl
    async def protojobs_before_push(self, job: object) -> None: ...


class Wrong:
    @hookimpl
    def protojobs_before_push(self, jobb: object) -> None: ...


class Hears:
    heard: list[str] = []

    @hookimpl
    def protojobs_queue_paused(self, event: Event) -> None:
        self.heard.append(event.event_name)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    """The plugins that seem to be installed."""
    found: list[EntryPoint] = []
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: found if group == "protojobs.plugins" else [])
    return found


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An importable module `makers`."""
    made = ModuleType("makers")
    monkeypatch.setitem(sys.modules, "makers", made)
    return made


def entry(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, "protojobs.plugins")


class TestInstalledOnes:
    def test_one_that_cannot_be_loaded_is_left_out_with_one_log_line(
        self, installed: list[EntryPoint], module: ModuleType, caplog: pytest.LogCaptureFixture
    ) -> None:
        module.__dict__["plugin"] = Hears()
        installed += [entry("broken", "no_such_module_anywhere"), entry("fine", "makers:plugin")]
        hooks = load_hooks([], [])
        hooks.check()
        assert hooks.plugins == ["fine"]
        assert [record.levelname for record in caplog.records] == ["ERROR"]

    def test_a_function_makes_the_plugin_or_says_that_nobody_has_asked_for_it(
        self, installed: list[EntryPoint], module: ModuleType
    ) -> None:
        module.__dict__.update(plugin=Hears(), asked=Hears, not_asked=lambda: None)
        installed += [entry("asked", "makers:asked"), entry("not_asked", "makers:not_asked")]
        assert load_hooks([], []).plugins == ["asked"]
        assert load_hooks(["makers:plugin", "makers"], ["asked"]).plugins == ["makers:plugin", "makers"]

    def test_what_one_says_of_its_settings_is_logged_as_it_stands(
        self, installed: list[EntryPoint], module: ModuleType, caplog: pytest.LogCaptureFixture
    ) -> None:
        def refuse() -> None:
            raise ConfigurationError("PROTOJOBS_X_PORT does not fit.", mend="Give a number.")

        module.__dict__["refuse"] = refuse
        installed.append(entry("x", "makers:refuse"))
        assert load_hooks([], []).plugins == []
        (record,) = caplog.records
        assert record.getMessage().endswith("cannot be loaded: PROTOJOBS_X_PORT does not fit. Give a number.")

    def test_a_disabled_one_is_not_even_imported(self, installed: list[EntryPoint]) -> None:
        installed.append(entry("tracing", "antigravity"))
        assert load_hooks([], ["tracing"]).plugins == []
        assert "antigravity" not in sys.modules

    def test_a_broken_one_is_a_warning_of_the_doctor(self, installed: list[EntryPoint]) -> None:
        installed.append(entry("broken", "no_such_module_anywhere"))
        (finding,) = _of_plugins(_queue())
        assert (finding.severity.name, '"broken" is left out' in finding.what) == ("WARNING", True)


class TestThoseThatTheSettingNames:
    """The setting `plugins`: somebody wants them, perhaps to encrypt, so nothing goes on without one of them."""

    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
            ("makers:not_there", "no attribute 'not_there'"),
            ("makers:Misspelt", 'there is no hook protojobs_befor_push. Did you mean "protojobs_before_push"?'),
            ("makers:Awaited", "is async"),
            ("makers:Wrong", "jobb"),
            ("makers:explode", "ZeroDivisionError"),
        ],
    )
    def test_without_one_nothing_is_pushed_or_run(self, module: ModuleType, name: str, why: str) -> None:
        module.__dict__.update(Misspelt=Misspelt, Awaited=Awaited, Wrong=Wrong, explode=lambda: 1 // 0)
        fine, broken = _queue(), _queue(name)
        fine.push(Echo, {})
        broken.driver = fine.driver
        for use in (lambda: broken.push(Echo, {}), lambda: broken.push_many([(Echo, {})]), lambda: broken.work("q", 1)):
            with pytest.raises(ConfigurationError, match=f'The plugin "{name}" of the setting plugins') as refusal:
                use()
            assert why in str(refusal.value)
            assert f"PROTOJOBS_PLUGINS_DISABLED={name}" in refusal.value.mend
        assert fine.stats().pending == 1

    def test_people_may_still_look_and_act_and_the_other_plugins_hear_of_it(self, module: ModuleType) -> None:
        module.__dict__["plugin"] = Hears()
        queue = _queue("no_such_module_anywhere", "makers:plugin")
        Hears.heard.clear()
        assert queue.pause("q") and queue.stats().total == 0
        assert Hears.heard == ["queue.paused"]

    def test_one_that_is_disabled_does_not_count(self) -> None:
        hooks = load_hooks(["no_such_module_anywhere"], ["no_such_module_anywhere"])
        hooks.check()
        assert hooks.plugins == []

    @pytest.mark.parametrize("named", ["vault", "makers:plugin"])
    def test_an_installed_one_can_be_named_too_and_is_there_once(
        self, installed: list[EntryPoint], module: ModuleType, named: str
    ) -> None:
        module.__dict__["plugin"] = Hears()
        installed.append(entry("vault", "makers:plugin"))
        assert load_hooks([named], []).plugins == ["vault"]
        del module.__dict__["plugin"]
        with pytest.raises(ConfigurationError, match='The plugin "vault"'):
            load_hooks([named], []).check()

    def test_a_broken_one_is_an_error_of_the_doctor(self) -> None:
        (finding,) = _of_plugins(_queue("no_such_module_anywhere"))
        assert finding.severity.name == "ERROR"
        assert "nothing is pushed or run without it" in finding.why
        assert "PROTOJOBS_PLUGINS_DISABLED=no_such_module_anywhere" in finding.mend


def _queue(*plugins: str) -> JobQueue:
    return JobQueue(MemoryDriver(), Settings(plugins=plugins, default_queue="q"))


def _of_plugins(queue: JobQueue) -> list[Finding]:
    return [one for one in examine(queue) if one.code == "plugin_broken"]
