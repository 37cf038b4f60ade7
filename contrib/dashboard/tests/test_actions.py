"""Every action, as a form (also without JavaScript) and as JSON: it does what it says, once, and sends on to a page."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.testclient import TestClient

from protojobs.port.lifecycle import JobState
from protojobs_dashboard.actions import ACTIONS

OWN = {"Sec-Fetch-Site": "same-origin"}
ASKING = sorted(action.name for action in ACTIONS if action.ask is not None)


def done(store, name: str) -> bool:
    """Whether the action of that name has had its effect."""
    queue = store.queue
    state = {one: record.status for one in (*store.failed, store.scheduled) if (record := queue.get(one))}
    queues = {info.name: info.is_paused for info in queue.queues()}
    schedule = store.inspector.schedule("hourly")
    return {
        "jobs/retry": state.get(store.failed[0]) is JobState.PENDING,
        "jobs/cancel": state.get(store.scheduled) is JobState.CANCELLED,
        "jobs/forget": store.failed[1] not in state,
        "jobs/edit": store.failed[2] not in state and '{"n":9}' in {one.data for one in queue.find(limit=50).jobs},
        "queues/pause": queues["emails"],
        "queues/resume": not queues.get("reports", False),
        "queues/clear": queue.stats("emails").total == 1,  # the one that is processing
        "schedules/run": queue.stats("emails").total == 8,
        "schedules/pause": schedule.is_paused,
        "schedules/resume": not schedule.is_paused,
        "operations/start": state.get(store.failed[2]) is JobState.PENDING,
    }[name]


def settled(client: TestClient, answer: object) -> None:
    """Wait for the operation that the answer names, if it is one."""
    location = getattr(answer, "headers", {}).get("location", "")
    operation_id = urlsplit(location).path.rpartition("/")[2] if "/operations/" in location else answer.json()["id"]
    for _ in range(2_000):
        if client.get(f"/api/v1/operations/{operation_id}").json()["state"] != "running":
            return
    raise AssertionError("the operation does not end")


@pytest.mark.parametrize("name", [action.name for action in ACTIONS if action.name != "operations/stop"])
def test_a_form_does_it_and_sends_on_to_a_page_that_says_so(store, client, name):
    if name == "schedules/resume":
        store.inspector.pause_schedule("hourly")
    assert not done(store, name)
    fields = {**store.fields()[name], "confirmed": "yes", "typed": "emails"}
    answer = client.post(f"/{name}", data=fields, headers=OWN)
    assert answer.status_code == 303
    target = urlsplit(answer.headers["location"])
    assert not target.netloc and target.path.startswith("/")
    assert parse_qs(target.query)["did"] == [name]
    if name == "operations/start":
        settled(client, answer)
    assert done(store, name)
    page = client.get(answer.headers["location"])
    assert page.status_code == 200 and 'data-testid="notice"' in page.text


@pytest.mark.parametrize("name", [action.name for action in ACTIONS if action.name != "operations/stop"])
def test_a_program_does_it_with_json_and_is_told_what_became_of_it(store, client, name):
    if name == "schedules/resume":
        store.inspector.pause_schedule("hourly")
    answer = client.post(f"/api/v1/{name}", json=store.fields()[name])
    assert answer.status_code == 200
    assert answer.json()
    if name == "operations/start":
        settled(client, answer)
    assert done(store, name)


@pytest.mark.parametrize("name", ASKING)
def test_what_cannot_be_undone_is_asked_for_first(store, client, read, name):
    fields = {**store.fields()[name], "back": "/jobs?q=state:failed"}
    answer = client.post(f"/{name}", data=fields, headers=OWN)
    page = read(answer.text)
    assert answer.status_code == 200 and not done(store, name)
    assert page.ids("confirm") == 1
    assert page.all("a", data_testid="confirm-back")[0]["href"] == "/jobs?q=state:failed"
    form = page.all("form", data_testid="confirm")[0]
    assert form["action"] == f"/{name}" and form["method"] == "post"
    sent = {field["name"]: field["value"] for field in page.all("input", type="hidden")}
    answer = client.post(form["action"], data={**sent, "typed": "emails"}, headers=OWN)
    assert answer.status_code == 303
    if name == "operations/start":
        settled(client, answer)
    assert done(store, name)


def test_a_queue_is_cleared_only_when_its_name_is_typed(store, client):
    fields = {"queue": "emails", "confirmed": "yes"}
    for typed in ("", "email", "Emails"):
        answer = client.post("/queues/clear", data={**fields, "typed": typed}, headers=OWN)
        assert answer.status_code == 400 and "That is not its name." in answer.text
    assert store.queue.stats("emails").total == 7


def test_the_question_about_all_that_match_names_their_number(client):
    answer = client.post("/operations/start", data={"action": "retry", "query": "state:failed"}, headers=OWN)
    assert "Retry all 3 failed jobs that match state:failed?" in answer.text
    answer = client.post("/operations/start", data={"action": "cancel", "query": "queue:emails"}, headers=OWN)
    assert "Cancel all 3 jobs that wait or run that match queue:emails?" in answer.text


@pytest.mark.parametrize("query", ['error:"customer 1', 'state:failed error:"', "state:completed"])
def test_what_is_not_begun_is_not_asked_about_either(client, query):
    fields = {"action": "forget", "query": query}
    asked = client.post("/operations/start", data=fields, headers=OWN)
    told = client.post("/operations/start", data={**fields, "confirmed": "yes"}, headers=OWN)
    assert (asked.status_code, told.status_code) == (400, 400)


@pytest.mark.parametrize("query", ["", "data.n:2", 'error:"customer 3 has"', "state:failed,completed", "attempt:>0"])
def test_the_question_counts_those_that_are_met(store, client, query):
    fields = {"action": "forget", "query": query}
    asked = client.post("/operations/start", data=fields, headers=OWN)
    begun = client.post("/operations/start", data={**fields, "confirmed": "yes"}, headers=OWN)
    settled(client, begun)
    operation_id = urlsplit(begun.headers["location"]).path.rpartition("/")[2]
    met = client.get(f"/api/v1/operations/{operation_id}").json()["done"]
    assert met > 0 and f"Forget all {met} failed jobs" in asked.text


@pytest.mark.parametrize("fields", [{}, {"fingerprint": ""}])
def test_a_query_that_was_left_out_is_not_all_jobs(store, client, fields):
    said = {"action": "forget", "confirmed": "yes", **fields}
    assert client.post("/operations/start", data=said, headers=OWN).status_code == 400
    assert client.post("/api/v1/operations/start", json={"action": "forget", **fields}).status_code == 400
    assert store.queue.stats().failed == 3


def test_what_came_while_the_person_was_asked_is_not_met(store, client):
    fields = {"action": "cancel", "query": "queue:emails state:ready"}
    asked = client.post("/operations/start", data=fields, headers=OWN)
    (at,) = re.findall(r'name="at" value="([^"]+)"', asked.text)
    later = store.queue.push(store.ok.bind(n=9))
    begun = client.post("/operations/start", data={**fields, "at": at, "confirmed": "yes"}, headers=OWN)
    settled(client, begun)
    assert store.queue.get(later).status == "pending"
    wrong = client.post("/operations/start", data={**fields, "at": "noon", "confirmed": "yes"}, headers=OWN)
    assert wrong.status_code == 400


def test_all_with_one_cause_are_met_by_its_fingerprint(store, client):
    fields = {"action": "forget", "fingerprint": store.fingerprint, "confirmed": "yes"}
    settled(client, client.post("/operations/start", data=fields, headers=OWN))
    assert store.queue.stats().failed == 0


def test_ticked_jobs_are_met_and_the_rest_is_left(store, client):
    answer = client.post("/jobs/retry", data={"ids": store.failed[:2], "back": "/jobs?q=state:failed"}, headers=OWN)
    assert answer.headers["location"] == "/jobs?q=state%3Afailed&did=jobs%2Fretry&done=2&refused=0"
    assert store.queue.stats().failed == 1
    assert "2 queued again." in client.get(answer.headers["location"]).text


def test_what_had_changed_meanwhile_is_counted(store, client):
    ids = [store.failed[0], store.completed, "01890000-0000-7000-8000-000000000000"]
    answer = client.post("/jobs/retry", data={"ids": ids}, headers=OWN)
    assert "1 queued again. 2 had changed meanwhile, or could not be." in client.get(answer.headers["location"]).text
    answers = client.post("/api/v1/jobs/cancel", json={"ids": [store.completed]}).json()
    assert answers == {"done": 0, "answers": {store.completed: "finished"}}


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("jobs/retry", {}, "No job is ticked."),
        ("jobs/retry", {"ids": [str(number) for number in range(1_001)]}, "At most 1,000"),
        ("queues/pause", {}, "queue"),
        ("queues/pause", {"queue": ["a", "b"]}, "one text"),
        ("jobs/edit", {"id": "x", "data": "{}"}, "no failed job"),
        ("operations/start", {"action": "delete", "query": ""}, "delete"),
        ("operations/start", {"action": "retry", "query": "nonsense:1"}, "nonsense"),
        ("schedules/run", {"id": "nothing"}, "nothing"),
    ],
)
def test_what_is_wrong_with_a_request_is_told_to_people_and_programs(client, name, fields, words):
    form = client.post(f"/{name}", data=fields, headers=OWN)
    call = client.post(f"/api/v1/{name}", json=fields)
    assert form.status_code == call.status_code, (form.text, call.text)
    assert form.status_code in (400, 404)
    assert words in form.text and words in call.text


def test_edited_data_must_be_json_that_fits(store, client):
    for data in ("{", '{"n": "many"}', "[" * 5_000):
        answer = client.post("/jobs/edit", data={"id": store.failed[0], "data": data}, headers=OWN)
        assert answer.status_code == 400, data[:20]
    assert store.queue.stats().failed == 3


@pytest.mark.parametrize(
    "back",
    ["//evil.example", "https://evil.example/", "/\\evil.example", "\\\\evil", "evil", "/a\nb", "http:/x", "///x"],
)
def test_nobody_is_sent_away_from_the_dashboard(store, client, back):
    answer = client.post("/queues/pause", data={"queue": "emails", "back": back}, headers=OWN)
    assert answer.headers["location"].startswith("/?did=")
    asked = client.post("/queues/clear", data={"queue": "emails", "back": back}, headers=OWN)
    assert "evil" not in asked.text.replace('value="', "").split('data-testid="confirm-back"')[0].rpartition("href=")[2]


def test_no_words_of_an_address_get_into_the_notice(client):
    assert "notice" not in client.get("/?did=you+won&done=1").text.replace('class="notice', "")
    assert 'data-testid="notice"' not in client.get("/?did=jobs/retry&done=<b>").text


def test_every_action_stands_in_the_audit_log_with_who_did_it(store, client):
    client.post("/queues/pause", data={"queue": "emails"}, headers=OWN)
    client.post("/api/v1/jobs/retry", json={"ids": [store.failed[0]]})
    notes = client.get("/api/v1/audit").json()["actions"][:2]
    assert [(note["action"], note["actor"], note["address"]) for note in notes] == [
        ("retry", "local", "127.0.0.1"),
        ("pause", "local", "127.0.0.1"),
    ]


def test_a_running_operation_is_stopped_from_its_page(store, client, read, monkeypatch):
    import threading

    held, begun = threading.Event(), threading.Event()
    before = store.queue.retry_failed

    def slowly(ids: list[str]) -> object:
        begun.set()
        assert held.wait(20)
        return before(ids)

    monkeypatch.setattr(store.queue, "retry_failed", slowly)
    location = client.post(
        "/operations/start", data={"action": "retry", "query": "", "confirmed": "yes"}, headers=OWN
    ).headers["location"]
    assert begun.wait(20)
    page = read(client.get(location).text)
    assert page.all("progress", data_testid="progress") and page.all("button", data_testid="operations-stop")
    operation_id = urlsplit(location).path.rpartition("/")[2]
    stopped = client.post("/operations/stop", data={"id": operation_id}, headers=OWN)
    assert stopped.headers["location"].startswith(f"/operations/{operation_id}?did=operations%2Fstop&done=1")
    held.set()
    settled(client, stopped)
    assert not read(client.get(location).text).all("button", data_testid="operations-stop")
    assert client.post("/api/v1/operations/stop", json={"id": operation_id}).json() == {"changed": False}
