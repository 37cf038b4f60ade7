"""Which store, which application, which settings: options, environment, file; and what is said when there is none."""

from __future__ import annotations

import sys

import pytest

from protojobs import JobQueue, create_driver
from protojobs.cli.session import Session


def test_without_a_store_it_says_how_to_name_one(type_) -> None:
    typed = type_("stats")
    assert (typed.code, typed.out) == (2, "")
    assert typed.err.startswith("error: No store is configured.\n  try: ")
    for way in ("--url", "PROTOJOBS_URL", "protojobs.toml", "--app shop.jobs:queue"):
        assert way in typed.err


@pytest.mark.parametrize(
    "words",
    [("--url", "URL", "stats", "emails"), ("stats", "--url", "URL", "emails"), ("stats", "emails", "--url", "URL")],
)
def test_the_url_may_stand_before_or_after_the_command(type_, queue, url, monkeypatch, push, words) -> None:
    push("mail.welcome", '{"email": "a@example.com"}')
    monkeypatch.delenv("PROTOJOBS_URL")
    assert type_(*(url if word == "URL" else word for word in words)).lines[0][:2] == ["emails", "1"]


def test_the_option_wins_over_the_environment(type_, url, folder) -> None:
    other = create_driver("sqlite:///other.db")
    other.setup()
    other.pause("other")
    assert [line[0] for line in type_("queues", "list", "--url", "sqlite:///other.db").lines] == ["other"]


def test_the_configuration_file_names_the_store(type_, folder) -> None:
    (folder / "protojobs.toml").write_text('url = "memory://"\n')
    assert type_("stats").code == 0


def test_a_broken_configuration_is_named(type_, folder) -> None:
    (folder / "protojobs.toml").write_text("concurency = 3\n")
    typed = type_("stats")
    assert typed.code == 2
    assert "protojobs.toml" in typed.err
    assert 'Did you mean "concurrency"?' in typed.err


def test_looking_imports_no_application(type_, url) -> None:
    assert type_("stats", "--app", "shop").code == 0
    assert type_("jobs", "list", "--app", "there_is_no_such_module").code == 0
    assert "shop" not in sys.modules


class TestAnApplicationWithAJobQueueOfItsOwn:
    @pytest.fixture
    def own(self, folder) -> JobQueue:
        queue = JobQueue(create_driver("sqlite:///own.db"))
        queue.driver.setup()
        queue.pause("its-own")
        return queue

    def test_gives_the_store(self, type_, own) -> None:
        assert [line[0] for line in type_("queues", "list", "--app", "shop:queue").lines] == ["its-own"]

    def test_is_called_what_its_driver_calls_itself(self, type_, own) -> None:
        said = type_("status", "--app", "shop:queue").err
        assert said.startswith("SQLAlchemyDriver sqlite:///") and "own.db: 0 workers" in said

    def test_is_named_wherever_a_store_is_not_the_url_configured_beside_it(self, type_, own, url) -> None:
        for words in (["status"], ["doctor"], ["worker", "--stop-when-empty"], ["migrate"], ["health"]):
            typed = type_(*words, "--app", "shop:queue")
            assert "own.db" in typed.err + typed.out, typed
            assert "jobs.db" not in typed.err + typed.out, typed

    def test_is_named_before_its_tables_go(self, type_, own, url) -> None:
        refused = type_("migrate", "--down", "--app", "shop:queue")
        assert refused.code == 2 and "own.db, with 0 jobs" in refused.err and "jobs.db" not in refused.err
        assert "own.db: removed." in type_("migrate", "--down", "--yes", "--app", "shop:queue").err

    def test_is_named_again_in_commands_that_mend_something(self, type_, folder, url) -> None:
        for words in (["worker"], ["stats"], ["health"]):
            assert "\n  try: protojobs migrate --app shop:queue\n" in type_(*words, "--app", "shop:queue").err
        assert type_("doctor", "--app", "shop:queue").lines[0][3] == "protojobs migrate --app shop:queue"
        assert type_("migrate", "--app", "shop:queue").code == 0
        assert (
            "\n  try: protojobs jobs list --app shop:queue\n" in type_("jobs", "show", "x", "--app", "shop:queue").err
        )
        told = type_("jobs", "show", "x", "--app", "shop:queue", "--url", url)
        assert f"\n  try: protojobs jobs list --url {url}\n" in told.err

    def test_gives_its_settings(self, type_, own) -> None:
        typed = type_("worker", "--app", "shop:queue", "--stop-when-empty")
        assert typed.code == 0
        assert "queues       emails, math, mine, in fair turn" in typed.err

    def test_and_options_of_the_command_win_over_them(self, type_, own) -> None:
        typed = type_("worker", "--app", "shop:queue", "--stop-when-empty", "--concurrency", "3")
        assert "concurrency  3" in typed.err
        assert "queues       emails, math, mine, in fair turn" in typed.err

    def test_wins_over_a_configured_url(self, type_, own, url) -> None:
        assert [line[0] for line in type_("queues", "list", "--app", "shop:queue").lines] == ["its-own"]

    def test_does_not_win_over_the_option(self, type_, own, url) -> None:
        assert type_("queues", "list", "--app", "shop:queue", "--url", url).lines == []

    def test_may_be_named_by_the_environment(self, type_, own, monkeypatch) -> None:
        monkeypatch.setenv("PROTOJOBS_APP", "shop:queue")
        assert [line[0] for line in type_("queues", "list").lines] == ["its-own"]


class TestASettingsFileInAFolderAbove:
    @pytest.fixture(autouse=True)
    def below(self, folder, monkeypatch) -> None:
        (folder / "protojobs.toml").write_text('url = "sqlite:///jobs.db"\napp = ["shop"]\n')
        (folder / "below").mkdir()
        monkeypatch.chdir(folder / "below")

    def test_names_the_store_and_the_application_beside_it(self, type_, folder) -> None:
        assert type_("migrate").code == 0
        assert (folder / "jobs.db").exists()
        assert type_("push", "chatty").code == 0
        assert "1 done" in type_("worker", "--stop-when-empty").err
        assert list((folder / "below").iterdir()) == []

    def test_is_named_where_the_store_is_not_there_or_the_application(self, type_, folder) -> None:
        file = folder / "protojobs.toml"
        assert f"jobs.db yet.\n  It is the url of {file}.\n" in type_("stats").err
        assert str(file) not in type_("stats", "--url", "sqlite:///other.db").err
        file.write_text('url = "sqlite:///jobs.db"\napp = ["shop:queue"]\n')
        told = type_("stats").err
        assert "own.db yet.\n" in told and str(file) not in told
        file.write_text('url = "sqlite:///jobs.db"\napp = ["shopp"]\n')
        said = type_("push", "chatty").err
        assert f"looked for in {folder}, in {folder / 'below'} and where Python looks, since {file} names it." in said
        assert 'Did you mean "shop"?' in said

    def test_plugins_are_beside_it_too(self, type_, folder) -> None:
        (folder / "protojobs.toml").write_text('plugins = ["bell"]\n')
        (folder / "bell.py").write_text("")
        assert type_("plugins").lines[-1][:4] == ["bell", "", "", "loaded"]

    def test_what_an_option_names_is_looked_for_in_the_current_folder(self, type_, folder) -> None:
        assert type_("migrate", "--url", "sqlite:///jobs.db").code == 0
        assert (folder / "below" / "jobs.db").exists()
        assert 'There is no module "shop".' in type_("push", "chatty", "--app", "shop").err


@pytest.mark.parametrize(
    ("app", "what", "mend"),
    [
        ("shpo", 'There is no module "shpo".', 'Did you mean "shop"?'),
        ("shop/jobs.py", '"shop/jobs.py" is no module name.', "try: --app shop.jobs"),
        ("shop:not_a_queue", "shop:not_a_queue is a int, not a JobQueue.", "--app shop"),
        ("shop:queu", 'shop has no "queu".', 'Did you mean "queue"?'),
        ("bad_syntax", 'Importing "bad_syntax" failed.', "bad_syntax.py, line 2"),
        ("raises", 'Importing "raises" failed.', "ValueError: on purpose"),
        ("exits", 'Importing "exits" failed.', "SystemExit: 3"),
        ("lacks", 'Importing "lacks" failed.', "No module named 'numbrs'"),
        ("timeot", 'Importing "timeot" failed.', "timeot.py, line 2)"),
        ("parses", 'Importing "parses" failed.', "parses.py, line 2)"),
    ],
)
def test_an_application_that_cannot_be_had(type_, url, folder, app, what, mend) -> None:
    (folder / "bad_syntax.py").write_text("x = 1\ndef (:\n")
    (folder / "raises.py").write_text('raise ValueError("on purpose")\n')
    (folder / "exits.py").write_text("raise SystemExit(3)\n")
    (folder / "lacks.py").write_text("import numbrs\n")
    (folder / "timeot.py").write_text("from protojobs import job\n@job(timeot=3)\ndef a(): ...\n")
    (folder / "parses.py").write_text("import json\njson.loads('{')\n")
    typed = type_("push", "add", "{}", "--app", app)
    assert (typed.code, typed.out) == (2, "")
    assert f"error: {what}" in typed.err
    assert mend in typed.err


@pytest.mark.parametrize(
    ("mend", "typed"),
    [
        ("protojobs jobs list", "protojobs jobs list --app shop:queue"),
        ("protojobs jobs show 7  (tells more)", "protojobs jobs show 7 --app shop:queue  (tells more)"),
        ('protojobs explain 7; x = "y" helps too.', 'protojobs explain 7 --app shop:queue; x = "y" helps too.'),
        ("Start one: protojobs worker q --app your.module", "Start one: protojobs worker q --app shop:queue"),
        ("protojobs worker 'a; b  (c)'", "protojobs worker 'a; b  (c)' --app shop:queue"),
        ("protojobs needs 3.35 or newer.", "protojobs needs 3.35 or newer."),
        ("Lower it, or `protojobs prune`.", "Lower it, or `protojobs prune`."),
    ],
)
def test_a_command_to_type_next_names_the_same_store(mend, typed) -> None:
    session = Session()
    session.apps = ["mail", "shop:queue"]
    assert session.to_type(mend) == typed


@pytest.mark.parametrize(
    ("mend", "typed"),
    [
        ("protojobs jobs list", "python manage.py protojobs jobs list"),
        ("protojobs worker q --app your.module", "python manage.py protojobs worker q"),
        ("protojobs worker q --app site", "python manage.py protojobs worker q"),
        ("protojobs worker q --app site --app mail", "python manage.py protojobs worker q --app mail"),
        ("Start one: protojobs worker q", "Start one: python manage.py protojobs worker q"),
        ("Lower it, or `protojobs prune`.", "Lower it, or `python manage.py protojobs prune`."),
        ("Upgrade protojobs and its driver.", "Upgrade protojobs and its driver."),
    ],
)
def test_a_command_to_type_in_another_program_has_its_name_and_no_app_that_it_gives(mend, typed) -> None:
    session = Session("python manage.py protojobs")
    session.apps = ["site:queue", "mail"]
    assert session.to_type(mend) == typed
    session.url = "sqlite:///other.db"
    assert session.to_type("protojobs jobs list") == "python manage.py protojobs jobs list --url sqlite:///other.db"


def test_two_queues_of_applications_are_one_too_many(type_, folder) -> None:
    (folder / "second.py").write_text("from protojobs import *\nq = JobQueue(create_driver('memory://'))\n")
    typed = type_("stats", "--app", "shop:queue", "--app", "second:q")
    assert typed.code == 2
    assert "more than one JobQueue" in typed.err


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("jobs.db", 'Write it like "sqlite:///jobs.db"'),
        ("memry://", 'Did you mean "memory"?'),
        ("sqlite:///no/such/folder/jobs.db", "does not exist"),
    ],
)
def test_an_address_that_is_none(type_, address, said) -> None:
    typed = type_("stats", "--url", address)
    assert typed.code == 2
    assert said in typed.err
