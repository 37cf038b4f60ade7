"""`protojobs doctor` and `protojobs explain`: what they print, and how they end."""

from __future__ import annotations

from pathlib import Path

import click

from protojobs.testing.conformance.steps import join, lend, new_job, push


def test_a_healthy_store(type_, queue) -> None:
    join(queue.driver)
    typed = type_("doctor")
    assert typed.code == 0
    assert typed.err.endswith("in order.\n")
    assert all(line[0] in {"note", "warning"} for line in typed.lines)


def test_the_columns_in_a_pipe(type_, queue) -> None:
    push(queue.driver, new_job("emails"))
    typed = type_("doctor")
    assert typed.code == 1
    severity, code, what, mend = typed.lines[0]
    assert (severity, code) == ("error", "queue_unserved")
    assert '"emails"' in what
    assert mend == "protojobs worker emails --app your.module"
    assert "1 error" in typed.err


def test_a_command_to_mend_it_names_the_application_where_it_is_known(type_, queue, monkeypatch) -> None:
    (job,) = push(queue.driver, new_job("emails"))
    monkeypatch.setenv("PROTOJOBS_APP", "shop")
    assert type_("doctor").lines[0][3] == "protojobs worker emails --app shop"
    assert ["mend", "protojobs worker emails --app shop"] in type_("explain", job).lines


def test_what_is_in_order_is_shown_on_demand(type_, queue) -> None:
    join(queue.driver)
    assert "ok" not in {line[0] for line in type_("doctor").lines}
    assert "ok" in {line[0] for line in type_("doctor", "-v").lines}


def test_one_json_document_with_everything(type_, queue) -> None:
    push(queue.driver, new_job("emails"))
    typed = type_("doctor", "--json")
    assert typed.code == 1
    assert typed.document["schema"] == "protojobs/doctor@1"
    first, *_, last = typed.document["items"]
    assert set(first) == {"severity", "code", "what", "why", "mend"}
    assert (first["severity"], last["severity"]) == ("error", "ok")


def test_from_which_severity_on_it_fails(type_, queue) -> None:
    join(queue.driver)
    push(queue.driver, new_job("q"))
    queue.pause("q")
    assert type_("doctor").code == 0
    assert type_("doctor", "--fail-on", "warning").code == 1


def test_a_store_without_tables(type_, folder: Path) -> None:
    typed = type_("doctor", "--url", "sqlite:///new.db")
    assert typed.code == 1
    assert typed.lines[0][:2] == ["error", "schema"]
    assert "protojobs migrate" in typed.lines[0][3]
    assert not (folder / "new.db").exists()


def test_a_store_that_does_not_answer(type_) -> None:
    typed = type_("doctor", "--url", "redis://127.0.0.1:1")
    assert (typed.code, typed.out) == (5, "")


def test_no_store_at_all(type_) -> None:
    assert type_("doctor").code == 2


def test_with_the_application_its_jobs_are_known(type_, queue, keep) -> None:
    keep("weekly", job_name="gone")
    assert "schedule_job_unknown" not in type_("doctor", "-v").out
    typed = type_("doctor", "--app", "shop")
    assert "schedule_job_unknown" in [line[1] for line in typed.lines]


def test_an_application_that_cannot_be_imported_is_a_finding(type_, queue, folder: Path) -> None:
    (folder / "broken_app.py").write_text("raise RuntimeError('no luck')")
    typed = type_("doctor", "--app", "broken_app")
    assert typed.code == 1
    assert "app_broken" in [line[1] for line in typed.lines]
    assert "no_worker" in [line[1] for line in typed.lines]  # the rest was looked at all the same


def test_on_a_terminal_findings_are_paragraphs(on_terminal, queue) -> None:
    push(queue.driver, new_job("emails"))
    text = " ".join(click.unstyle(on_terminal("doctor").out).split())
    assert "error No living worker serves" in text
    assert "[queue_unserved]" in text
    assert "Mend: protojobs worker emails --app your.module" in text


def test_nothing_from_the_store_reaches_the_terminals_controls(type_, queue) -> None:
    push(queue.driver, new_job("evil\x1b[2Jqueue"))
    assert "\x1b" not in type_("doctor").out


def test_explain_says_why(type_, queue) -> None:
    (job,) = push(queue.driver)
    typed = type_("explain", job)
    assert typed.code == 0
    fields = dict(line for line in typed.lines if len(line) == 2)
    assert (fields["job"], fields["state"], fields["code"]) == (job, "pending", "worker_alive")
    assert fields["mend"] == "protojobs worker q --app your.module"
    assert "  no  worker_alive    No worker is alive that uses this store." in typed.out.splitlines()


def test_explain_as_json_has_the_whole_chain(type_, queue) -> None:
    (job,) = push(queue.driver)
    lend(queue.driver, join(queue.driver))
    item = type_("explain", job, "--json").document["item"]
    assert (item["job_id"], item["state"], item["code"]) == (job, "processing", "processing")
    assert [set(check) for check in item["checks"]] == [{"code", "passed", "words"}] * len(item["checks"])


def test_explain_of_an_unknown_id(type_, queue) -> None:
    typed = type_("explain", "none")
    assert typed.code == 3
    assert "There is no job" in typed.out
