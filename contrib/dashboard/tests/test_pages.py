"""Every page: it shows what it is for, in a form that keyboards, readers and a strict policy can work with."""

from __future__ import annotations

import re

import pytest
from msgspec.structs import replace

from protojobs.port.lifecycle import JobState
from protojobs.port.records import WorkerInfo
from protojobs.port.schedules import SchedulePage, UnreadableSchedule
from protojobs_dashboard.app import PAGES, Dashboard

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
ROUTES = sorted(PAGES)


@pytest.fixture
def store(seen_store):
    return seen_store


def test_the_store_of_these_tests_has_an_address_for_every_page(store):
    assert set(store.paths()) == set(PAGES)


@pytest.mark.parametrize("route", ROUTES)
def test_a_page_has_one_heading_landmarks_labels_and_no_inline_code(store, client, read, route):
    answer = client.get(store.paths()[route])
    page = read(answer.text)
    assert answer.status_code == 200
    assert page.open == []
    assert [len(page.all(tag)) for tag in ("h1", "main", "header")] == [1, 1, 1]
    assert page.all("html")[0]["lang"] == "en"
    ids = [found["id"] for _, found in page.elements if "id" in found]
    assert len(ids) == len(set(ids))
    labels = {found.get("for") for found in page.all("label")}
    for tag in ("input", "textarea"):
        for field in page.all(tag):
            is_named = field.get("type") in ("hidden",) or field.get("id") in labels or "aria-label" in field
            assert is_named or field["id"] == "keys-on", field
    for tag, found in page.elements:
        assert "style" not in found, (tag, found)
        assert not any(name.startswith("on") for name in found), (tag, found)
        assert not any(value.lower().startswith("javascript:") for value in found.values())
        for name in ("aria-labelledby", "aria-describedby"):
            assert set(found.get(name, "").split()) <= set(ids), (tag, found)
    assert all("src" in script for script in page.all("script"))
    for link in page.all("a"):
        assert link["href"].startswith(("/", "#"))


@pytest.mark.parametrize("route", ROUTES)
def test_a_page_is_kept_by_nobody_and_may_load_our_own_files_only(store, client, route):
    answer = client.get(store.paths()[route])
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"


@pytest.mark.parametrize("route", ROUTES)
def test_a_page_that_is_open_fetches_the_region_that_changes_and_no_more(store, client, read, route):
    part = client.get(store.paths()[route], headers={"HX-Request": "true"})
    page = read(part.text)
    assert part.status_code == 200
    assert part.headers["vary"] == "HX-Request"
    assert page.open == []
    assert not page.all("html") and not page.all("h1") and not page.all("script")
    assert part.text.strip()


def test_the_overview_shows_figures_alerts_and_charts_with_their_data(client, read):
    page = read(client.get("/").text)
    assert {f"chart-{name}" for name in ("throughput", "wait-times", "run-times", "depths")} <= {
        found.get("data-testid") for _, found in page.elements
    }
    figures = " ".join(page.text.split())
    assert "Ready1" in figures and "Running1" in figures and "Scheduled1" in figures and "Failed3" in figures
    assert "The queue reports is paused." in figures
    for drawing in page.all("svg", role="img"):
        assert drawing["aria-labelledby"]


def alerts_of(client, read):
    """The overview's page, and the markup of each alert in it that is red."""
    text = client.get("/").text
    return read(text), re.findall(r'<li class="alert bad">(.*?)</li>', text, re.DOTALL)


def test_queues_with_due_jobs_that_no_worker_serves_are_named_with_the_command_that_serves_them(
    make_store, client_for, read
):
    store = make_store("memory://")
    client = client_for(store)
    names = [f"bulk-{number}" for number in range(6)] + ["its <b>own</b>"]
    for name in names:
        store.queue.push(store.ok.bind(n=1).on_queue(name))
    store.queue.push(store.ok.bind(n=1).on_queue("reports"))  # is paused: it waits by wish
    store.queue.later(3600, store.ok.bind(n=1).on_queue("tomorrow"))  # has nothing due
    page, (alert,) = alerts_of(client, read)
    text = " ".join(read(alert).text.split())
    assert text == (
        "No worker serves bulk-0, bulk-1, bulk-2, bulk-3, bulk-4 and 2 more, where jobs are due."
        " Start one: protojobs worker bulk-0 bulk-1 bulk-2 bulk-3 bulk-4 --app your.module"
    )
    assert page.all("a", href="/queue?name=bulk-0")
    assert client.get("/api/v1/overview").json()["unserved"] == names


def test_the_alert_about_a_queue_that_no_worker_serves_goes_with_its_cause(make_store, client_for, read):
    store = make_store("memory://")
    client = client_for(store)
    assert alerts_of(client, read)[1] == []
    store.queue.push(store.ok.bind(n=1).on_queue("its <b>own</b>"))
    _, (alert,) = alerts_of(client, read)
    assert "No worker serves its <b>own</b>, where jobs are due." in " ".join(read(alert).text.split())
    assert "<b>" not in alert
    assert "protojobs worker 'its <b>own</b>' --app your.module" in read(alert).text
    worker = WorkerInfo(id="w-2", host="web", pid=8, queues=("its *",), concurrency=1, lease_s=600.0)
    store.queue.driver.register(worker)
    assert alerts_of(client, read)[1] == []
    assert client.get("/api/v1/overview").json()["unserved"] == []


def test_without_any_worker_one_alert_says_so_and_none_lists_the_queues(make_store, client_for, read):
    store = make_store("memory://")
    client = client_for(store)
    store.queue.push(store.ok.bind(n=1).on_queue("bulk"))
    store.queue.driver.leave("w-1")
    _, (alert,) = alerts_of(client, read)
    assert "There are jobs to run, and no worker is running." in read(alert).text
    assert client.get("/api/v1/overview").json()["unserved"] == ["bulk", "emails"]


def test_a_span_that_is_no_number_or_too_long_is_told(client):
    for minutes in ("0", "x", "1e3", "-5", "99999999999", "10081"):
        answer = client.get(f"/?minutes={minutes}")
        assert answer.status_code == 400
        assert "It goes from 1 to 10080." in answer.text
    assert client.get("/?minutes=10080").status_code == 200


def test_the_search_finds_by_the_query_and_counts_the_tabs(store, client, read):
    page = read(client.get("/jobs?q=state:failed").text)
    assert page.ids("job-row") == 3
    assert "LookupError: customer 3 has no address" in page.text
    tabs = " ".join(page.text.split())
    assert "All 7" in tabs and "Failed 3" in tabs and "Completed 1" in tabs
    assert page.all("a", aria_current="true", data_testid="tab-failed")
    links = page.all("a", data_testid="tab-ready")
    assert links[0]["href"] == "/jobs?q=state%3Aready"
    assert read(client.get("/jobs?q=queue:emails -state:failed").text).ids("job-row") == 4


def test_an_error_of_the_query_stands_beside_its_box(client, read):
    answer = client.get("/jobs?q=quue:emails")
    page = read(answer.text)
    assert answer.status_code == 400
    assert page.all("input", id="q")[0]["value"] == "quue:emails"
    assert page.all("input", id="q")[0]["aria-invalid"] == "true"
    assert "queue" in page.text and page.ids("q-error") == 1 and page.ids("job-row") == 0


def test_long_lists_go_on_by_a_link(make_store, client_for, read):
    store = make_store("memory://")
    client = client_for(store)
    ids = store.queue.push_many([store.ok.bind(n=number) for number in range(60)])
    first = read(client.get("/jobs?q=state:ready").text)
    assert first.ids("job-row") == 50
    following = first.all("a", data_testid="next-page")[0]["href"]
    second = read(client.get(following).text)
    assert second.ids("job-row") == 11
    assert second.ids("first-page") == 1
    seen = {found["value"] for page in (first, second) for found in page.all("input", name="ids")}
    assert set(ids) <= seen


def test_a_failed_job_shows_its_traceback_attempts_and_data(store, client, read):
    page = read(client.get(f"/jobs/{store.failed[0]}").text)
    assert page.ids("failure") == 1 and page.ids("attempts") == 1 and page.ids("edit-form") == 1
    assert "LookupError: customer 1 has no address" in page.text and "Traceback" in page.text
    assert page.all("a", data_testid="same-cause")[0]["href"] == f"/errors/{store.fingerprint}"
    assert '"n": 1' in page.text


@pytest.mark.parametrize(("which", "verdict"), [("ready", "free"), ("scheduled", "not due"), ("held", "worker w-1")])
def test_a_job_that_has_not_ended_says_why(store, client, read, which, verdict):
    path = f"/jobs/{getattr(store, which)}"
    page = read(client.get(path).text)
    assert page.all("section", data_testid="why")[0]["hx-get"] == f"{path}/why"
    assert page.all("a", data_testid="why-link")[0]["href"] == f"{path}/why"
    assert verdict in client.get(f"{path}/why").text.lower()
    assert verdict in client.get(f"{path}/why", headers={"HX-Request": "true"}).text.lower()
    assert page.ids("jobs-cancel") == 1 and page.ids("jobs-retry") == 0


def test_a_completed_job_offers_nothing_to_do(store, client, read):
    page = read(client.get(f"/jobs/{store.completed}").text)
    assert page.ids("why") == 0 and page.ids("jobs-cancel") == 0 and page.ids("jobs-forget") == 0


def test_errors_are_grouped_by_cause(store, client, read):
    page = read(client.get("/errors").text)
    assert page.ids("error-row") == 1
    group = read(client.get(f"/errors/{store.fingerprint}").text)
    assert group.ids("job-row") == 3 and group.ids("sample") == 1


def test_a_schedule_that_cannot_be_read_is_shown_beside_the_others(store, client, read, monkeypatch):
    driver = store.queue.driver
    page = driver.list_schedules()
    odd = UnreadableSchedule(id="odd<b>", why="Invalid enum value 'newest'")
    monkeypatch.setattr(driver, "list_schedules", lambda **_: replace(page, unreadable=(odd,)))
    monkeypatch.setattr(driver, "get_schedules", lambda _ids: SchedulePage(unreadable=(odd,)))
    shown = read(client.get("/schedules").text)
    assert shown.ids("schedule-row") == 1
    assert "odd<b>" in shown.text and "Invalid enum value" in shown.text
    one = client.get("/schedule", params={"id": "odd<b>"})
    assert one.status_code == 409 and "cannot be read here" in one.text


def test_queues_workers_and_schedules_list_what_there_is(store, client, read):
    assert read(client.get("/queues").text).ids("queue-row") == 2
    assert read(client.get("/workers").text).ids("worker-row") == 1
    schedules = read(client.get("/schedules").text)
    assert schedules.ids("schedule-row") == 1 and "Every" in schedules.text or "hour" in schedules.text
    assert len(re.findall("<li><time", client.get("/schedule?id=hourly").text)) == 10
    held = read(client.get("/worker?id=w-1").text)
    assert held.ids("held") == 1


def test_the_audit_log_names_who_did_what(make_store, serve, read):
    store = make_store("memory://")
    audit = read(serve(Dashboard(store.queue)).get("/audit").text)
    assert audit.ids("audit-row") == 1 and "ann" in audit.text and "reports" in audit.text
    store.queue.close()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/jobs/01890000-0000-7000-8000-000000000000", "no such job"),
        ("/errors/0000000000000000", "No failed job has this cause"),
        ("/worker?id=nobody", "no such worker"),
        ("/schedule?id=nothing", "no such schedule"),
        ("/operations/nothing", "no such operation"),
        ("/nowhere", "no such page"),
    ],
)
def test_what_is_not_there_is_told_with_a_way_on(client, read, path, words):
    answer = client.get(path)
    assert answer.status_code == 404
    assert words in answer.text
    assert read(answer.text).all("main")


def test_an_empty_store_says_what_to_do(make_store, serve, read):
    from protojobs import JobQueue, create_driver

    driver = create_driver("memory://")
    driver.setup()
    client = serve(Dashboard(JobQueue(driver)))
    for path in ("/", "/jobs", "/errors", "/queues", "/workers", "/schedules", "/operations", "/audit"):
        page = read(client.get(path).text)
        assert page.ids("empty") == 1, path
    assert "protojobs worker" in client.get("/workers").text
    driver.close()


def test_a_driver_that_keeps_no_notes_says_so_and_the_rest_works(store, client, read, monkeypatch):
    from msgspec.structs import replace

    blind = replace(store.queue.driver.capabilities, observing=False)
    monkeypatch.setattr(store.queue.driver, "capabilities", blind)
    for path in ("/", "/errors", "/queue?name=emails", "/audit"):
        answer = client.get(path)
        assert answer.status_code == 200 and "keeps no notes" in answer.text, path
    assert client.get("/api/v1/errors").status_code == 501
    assert client.get(f"/jobs/{store.failed[0]}").status_code == 200


def test_hidden_fields_are_on_no_page_and_in_no_answer(make_store, serve):
    store = make_store("memory://")
    secret_id = store.queue.push(store.ok.bind(n=77_123))
    client = serve(Dashboard(store.queue, redact=["n"]))
    for path in (f"/jobs/{secret_id}", "/jobs", f"/api/v1/jobs/{secret_id}", "/api/v1/jobs"):
        answer = client.get(path)
        assert "77123" not in answer.text and "[hidden]" in answer.text, path


def test_what_stands_in_the_store_is_not_shown_when_it_does_not_answer(store, client, monkeypatch):
    from protojobs.errors import StoreUnavailable

    def silent(*_args: object, **_kwargs: object) -> None:
        raise StoreUnavailable("It does not answer.", mend="Start it.")

    monkeypatch.setattr(type(store.queue.driver), "now", silent)
    page, call = client.get("/jobs"), client.get("/api/v1/overview")
    assert page.status_code == 503 and "It does not answer." in page.text and "Start it." in page.text
    assert call.status_code == 503 and call.json()["error"]["code"] == "StoreUnavailable"
    assert client.get("/livez").status_code == 200
    assert client.get("/readyz").status_code == 503


def test_the_words_of_states_are_those_of_the_lifecycle(client):
    style = client.get(re.search(r'href="([^"]+style\.css)"', client.get("/").text).group(1)).text
    for state in JobState:
        assert f".s-{state.value}" in style or state is JobState.MOVING or state is JobState.CANCELLED
