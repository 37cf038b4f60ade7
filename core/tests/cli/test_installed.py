"""`protojobs drivers` and `plugins`: what is installed, and what is wrong with it."""

from __future__ import annotations

import pytest

from protojobs import hookimpl


def test_drivers_by_scheme(type_) -> None:
    lines = type_("drivers").lines
    assert ["memory", "protojobs-memory", "0.1.0", "protojobs_memory:MemoryDriver"] in lines
    assert [line[0] for line in lines] == sorted(line[0] for line in lines)
    document = type_("drivers", "--json").document
    assert document["schema"] == "protojobs/drivers@1"
    assert {"sqlite", "postgresql", "memory"} <= {item["scheme"] for item in document["items"]}


class Good:
    @hookimpl
    def protojobs_job_processed(self, event: object) -> None: ...

    @hookimpl
    def protojobs_around_job(self, context: object) -> None: ...


class Misspelt:
    @hookimpl
    def protojobs_job_proccessed(self, event: object) -> None: ...


class WrongArguments:
    @hookimpl
    def protojobs_job_processed(self, evnt: object) -> None: ...


@pytest.fixture
def installed(monkeypatch):
    class Distribution:
        name = "nice-plugin"
        version = "1.2.3"

    class Entry:
        dist = Distribution()

        def __init__(self, name: str, plugin: object) -> None:
            self.name, self.plugin = name, plugin

        def load(self) -> object:
            if isinstance(self.plugin, Exception):
                raise self.plugin
            return self.plugin

    def install(**plugins: object) -> None:
        entries = [Entry(name, plugin) for name, plugin in plugins.items()]
        monkeypatch.setattr("protojobs.hooks.installed_plugins.plugin_entry_points", lambda: entries)

    install()
    return install


class TestPlugins:
    def test_none(self, type_, installed) -> None:
        typed = type_("plugins")
        assert (typed.code, typed.out, typed.err) == (0, "", "No plugin is installed.\n")

    def test_a_good_one_with_its_hooks(self, type_, installed) -> None:
        installed(good=Good)
        assert type_("plugins").lines == [["good", "nice-plugin", "1.2.3", "loaded", "around_job job_processed", ""]]
        (item,) = type_("plugins", "--json").document["items"]
        assert item["hooks"] == ["protojobs_around_job", "protojobs_job_processed"]

    def test_one_that_nobody_has_asked_for(self, type_, installed) -> None:
        installed(good=lambda: None)
        typed = type_("plugins")
        assert typed.lines == [["good", "nice-plugin", "1.2.3", "idle", "", ""]]
        assert typed.err.startswith("idle: installed, and not switched on.")

    def test_a_disabled_one_is_not_imported(self, type_, installed, monkeypatch) -> None:
        installed(good=RuntimeError("must not be loaded"))
        monkeypatch.setenv("PROTOJOBS_PLUGINS_DISABLED", "good")
        assert type_("plugins").lines[0][3] == "disabled"

    @pytest.mark.parametrize(
        ("plugin", "reason"),
        [
            (ImportError("no module named 'x'"), "ImportError: no module named 'x'"),
            (Misspelt, "there is no hook protojobs_job_proccessed. Did you mean"),
            (WrongArguments, "evnt"),
        ],
    )
    def test_a_broken_one_with_the_reason_beside_the_others(self, type_, installed, plugin, reason) -> None:
        installed(broken=plugin, good=Good)
        broken, good = type_("plugins").lines
        assert broken[3] == "broken"
        assert reason in broken[5]
        assert good[3] == "loaded"

    def test_a_module_of_the_settings(self, type_, installed, folder, monkeypatch) -> None:
        (folder / "my_plugin.py").write_text(
            "from protojobs import hookimpl\n@hookimpl\ndef protojobs_job_failed(event): ...\n"
        )
        monkeypatch.setenv("PROTOJOBS_PLUGINS", "my_plugin")
        assert type_("plugins").lines == [["my_plugin", "", "", "loaded", "job_failed", ""]]

    def test_nothing_runs_without_a_broken_one_that_the_settings_name(self, type_, installed, url, monkeypatch) -> None:
        monkeypatch.setenv("PROTOJOBS_PLUGINS", "no_such_module")
        typed = type_("plugins")
        assert typed.code == 1
        assert typed.lines[0][3:] == ["broken", "", "ModuleNotFoundError: No module named 'no_such_module'"]
        assert typed.err == "Nothing is pushed or run without no_such_module: the setting plugins names it.\n"
        for words in (["push", "chatty"], ["worker", "--stop-when-empty"], ["scheduler", "--once"]):
            typed = type_(*words, "--app", "shop")
            assert (typed.code, typed.out) == (2, "")
            assert 'error: The plugin "no_such_module" of the setting plugins cannot be used' in typed.err
            assert "\n  try: Mend it, or leave it out: PROTOJOBS_PLUGINS_DISABLED=no_such_module\n" in typed.err
        assert type_("doctor").lines[0][:2] == ["error", "plugin_broken"]
        monkeypatch.setenv("PROTOJOBS_PLUGINS_DISABLED", "no_such_module")
        assert type_("plugins").code == 0
        assert type_("worker", "--app", "shop", "--stop-when-empty").code == 0
