"""Who gets in, and who may change what: tried on every route that there is, so that none can be forgotten."""

from __future__ import annotations

import base64

import pytest
from starlette.requests import Request
from starlette.routing import Route

from protojobs.errors import ConfigurationError
from protojobs.inspector import Role, Viewer
from protojobs_dashboard import BasicAuth, Dashboard, TokenAuth, TrustedHeader
from protojobs_dashboard.actions import ACTIONS
from protojobs_dashboard.api import READS
from protojobs_dashboard.app import PAGES
from protojobs_dashboard.guards import BODY_BYTES_MAX

OWN = {"Sec-Fetch-Site": "same-origin"}
OPEN = {"/livez", "/readyz", "/static/{version}/{name:path}"}
SECRET = "a long secret"


@pytest.fixture
def store(seen_store):
    return seen_store


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def addresses(store, dashboard: Dashboard) -> dict[str, tuple[str, str]]:
    """Every route of the application -> a method and an address; one that has none fails the test."""
    known = {
        **{path: ("GET", address) for path, address in store.paths().items()},
        **{f"/{action.name}": ("POST", f"/{action.name}") for action in ACTIONS},
        **{f"/api/v1/{action.name}": ("POST", f"/api/v1/{action.name}") for action in ACTIONS},
        **{
            f"/api/v1{path}": (
                "GET",
                f"/api/v1{path}".replace("{id}", store.failed[0]).replace("{fingerprint}", store.fingerprint),
            )
            for path in READS
        },
        "/events": ("GET", "/events"),
    }
    found = {route.path for route in dashboard.routes if isinstance(route, Route)}
    assert len(dashboard.routes) == len({(r.path, tuple(sorted(r.methods))) for r in dashboard.routes})
    assert found - OPEN == set(known)
    return known


def test_every_route_is_a_page_an_action_a_read_or_open_to_all(store):
    known = addresses(store, Dashboard(store.queue))
    assert set(PAGES) <= set(known)
    posts = [path for path, (method, _) in known.items() if method == "POST"]
    assert len(posts) == 2 * len(ACTIONS)


def test_no_action_takes_a_get(store, client):
    before = store.queue.stats()
    for action in ACTIONS:
        for path in (f"/{action.name}", f"/api/v1/{action.name}"):
            answer = client.get(path, params=store.fields()[action.name], headers=OWN)
            assert answer.status_code in (404, 405), path
    assert store.queue.stats() == before


def test_off_loopback_nothing_is_served_without_an_auth(store, serve):
    dashboard = Dashboard(store.queue)
    client = serve(dashboard, "10.0.0.7")
    for method, path in addresses(store, dashboard).values():
        answer = client.request(method, path, headers=OWN)
        assert answer.status_code == 403 and "BasicAuth" in answer.text, path
    for address in ("192.168.1.5", "2001:db8::1", "testclient", "", "0.0.0.0"):
        assert serve(dashboard, address).get("/jobs").status_code == 403, address
    for address in ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"):
        assert serve(dashboard, address).get("/").status_code == 200, address


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8787",
        "127.0.0.1.evil.example",
        "",
        "a@127.0.0.1",
        "[::2]",
        "[::1].evil.example",
        "[::1]x:8787",
    ],
)
def test_a_name_of_elsewhere_that_leads_here_is_not_served(store, serve, host):
    client = serve(Dashboard(store.queue))
    assert client.get("/jobs", headers={"Host": host}).status_code == 403
    assert client.post("/queues/pause", data={"queue": "emails"}, headers={"Host": host, **OWN}).status_code == 403
    for own in ("localhost:8787", "127.0.0.1", "[::1]:8787", "LOCALHOST"):
        assert client.get("/jobs", headers={"Host": own}).status_code == 200, own


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Forwarded-Host"])
def test_without_an_auth_nothing_is_served_through_a_proxy(store, serve, header):
    assert serve(Dashboard(store.queue)).get("/", headers={header: "127.0.0.1"}).status_code == 403


def test_probes_and_assets_are_open_to_all_and_tell_nothing(store, serve):
    client = serve(Dashboard(store.queue), "10.0.0.7")
    assert client.get("/livez").text == "ok\n" and client.get("/readyz").text == "ok\n"
    assert client.post("/livez", headers=OWN).status_code == 403


def test_a_viewer_of_role_none_sees_nothing_by_any_route(store, with_role):
    client = with_role(Role.NONE)
    dashboard = Dashboard(store.queue)
    for method, path in addresses(store, dashboard).values():
        answer = client.request(method, path, headers=OWN)
        assert answer.status_code in (400, 403), path
        for word in ("customer", "dashboard.boom", "emails", "hourly", store.failed[0], store.fingerprint):
            assert word not in answer.text.replace("queue:emails", ""), (path, word)


def test_a_viewer_who_may_read_reads_everything_and_changes_nothing_by_any_route(store, with_role, read):
    client = with_role(Role.READ)
    before = state_of(store)
    for path, (method, address) in addresses(store, Dashboard(store.queue)).items():
        if method == "GET" and path != "/events":
            assert client.get(address).status_code in (200, 404), address
    for action in ACTIONS:
        fields = {**store.fields()[action.name], "confirmed": "yes", "typed": "emails"}
        for answer in (
            client.post(f"/{action.name}", data=fields, headers=OWN),
            client.post(f"/{action.name}", data=store.fields()[action.name], headers=OWN),
            client.post(f"/api/v1/{action.name}", json=store.fields()[action.name]),
        ):
            assert answer.status_code == 403, action.name
    assert state_of(store) == before
    notes = client.get("/api/v1/audit", params={"limit": 200}).json()["actions"]
    refused = [note for note in notes if note["actor"] == "bob" and "the role is read" in note["detail"]]
    assert len(refused) == 3 * len(ACTIONS)


def test_what_a_reader_may_not_do_is_not_offered(store, with_role, client, read):
    reader = with_role(Role.READ)
    for path in store.paths().values():
        if path.startswith("/operations/"):
            continue
        page = read(reader.get(path).text)
        assert not page.all("form", method="post"), path
        assert not page.all("input", type="checkbox", name="ids"), path
        assert "read only" in page.text, path
    assert read(client.get("/jobs").text).all("form", method="post")


def test_read_only_lets_nobody_act(store, serve):
    client = serve(Dashboard(store.queue, is_read_only=True))
    assert client.get("/").status_code == 200
    assert client.post("/queues/pause", data={"queue": "emails"}, headers=OWN).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:8787"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "null"},
        {"Origin": "http://[bad"},
        {},
    ],
)
def test_no_page_of_elsewhere_can_change_anything_by_any_route(store, client, headers):
    before = state_of(store)
    for action in ACTIONS:
        fields = {**store.fields()[action.name], "confirmed": "yes", "typed": "emails"}
        for path in (f"/{action.name}", f"/api/v1/{action.name}"):
            assert client.post(path, data=fields, headers=headers).status_code == 403, path
        if headers:
            json = client.post(f"/api/v1/{action.name}", json=store.fields()[action.name], headers=headers)
            assert json.status_code == 403
    assert state_of(store) == before


def test_a_browser_without_sec_fetch_site_is_known_by_its_origin(store, client):
    answer = client.post("/queues/pause", data={"queue": "emails"}, headers={"Origin": "http://127.0.0.1:8787"})
    assert answer.status_code == 303


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods_change_nothing(store, client, method):
    for path in ("/", "/jobs", "/jobs/retry", f"/jobs/{store.failed[0]}", "/api/v1/jobs"):
        assert client.request(method, path, headers=OWN).status_code in (403, 405), path
    assert "access-control-allow-origin" not in client.options("/api/v1/jobs", headers=OWN).headers


def test_a_body_has_a_bound(store, client):
    answer = client.post("/queues/pause", content=b"queue=" + b"x" * BODY_BYTES_MAX, headers=OWN)
    assert answer.status_code == 413
    assert client.post("/jobs/retry", content=b"&".join([b"ids=1"] * 5_000), headers=OWN).status_code == 400
    assert client.post("/jobs/retry", content=b"\xff\xfe", headers=OWN).status_code == 400
    json = {"Content-Type": "application/json"}
    for body in (b"[", b"[]", b'{"ids": 3}', b'{"ids": [null]}', b"\xff", b"[" * 100_000):
        assert client.post("/api/v1/jobs/retry", content=body, headers=json).status_code == 400, body[:20]


# ---------------------------------------------------------------------------------------------------------- ready-made


def test_basic_auth_knows_names_passwords_and_operators(store, serve):
    auth = BasicAuth({"ann": SECRET, "bob": "another secret"}, operators={"ann"})
    client = serve(Dashboard(store.queue, auth=auth), "10.0.0.7", base_url="http://ops.example")
    for headers in ({}, basic("ann", "wrong"), basic("eve", SECRET), basic("ann", ""), {"Authorization": "Basic %%%"}):
        answer = client.get("/", headers=headers)
        assert answer.status_code == 401 and answer.headers["www-authenticate"].startswith("Basic"), headers
        assert client.get("/api/v1/jobs", headers=headers).status_code == 401
        assert client.get("/events", headers=headers).status_code == 401
    assert client.get("/", headers=basic("ann", SECRET)).status_code == 200
    pause = {"queue": "emails"}
    assert (
        client.post("/queues/pause", data=pause, headers={**OWN, **basic("bob", "another secret")}).status_code == 403
    )
    assert client.post("/queues/pause", data=pause, headers={**OWN, **basic("ann", SECRET)}).status_code == 303
    note = client.get("/api/v1/audit", headers=basic("ann", SECRET)).json()["actions"][0]
    assert (note["actor"], note["address"]) == ("ann", "10.0.0.7")


def test_a_token_comes_as_bearer_or_as_a_password(store, serve):
    client = serve(Dashboard(store.queue, auth=TokenAuth({"grafana": SECRET}, operators=())), "10.0.0.7")
    assert client.get("/api/v1/jobs", headers={"Authorization": f"Bearer {SECRET}"}).status_code == 200
    assert client.get("/", headers=basic("anybody", SECRET)).status_code == 200
    for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": "Bearer x"}, basic(SECRET, "x")):
        assert client.get("/api/v1/jobs", headers=headers).status_code == 401
    acting = client.post(
        "/api/v1/queues/pause", json={"queue": "emails"}, headers={"Authorization": f"Bearer {SECRET}"}
    )
    assert acting.status_code == 403


def test_a_trusted_header_counts_from_its_proxies_only(store, serve):
    dashboard = Dashboard(store.queue, auth=TrustedHeader("X-User", proxies=["10.0.0.0/8"], operators={"ann"}))
    assert serve(dashboard, "10.0.0.7").get("/", headers={"X-User": "ann"}).status_code == 200
    assert serve(dashboard, "10.0.0.7").get("/").status_code == 401
    assert serve(dashboard, "192.168.0.1").get("/", headers={"X-User": "ann"}).status_code == 401
    assert serve(dashboard, "testclient").get("/", headers={"X-User": "ann"}).status_code == 401
    twice = [("X-User", "bob"), ("X-User", "ann")]
    assert serve(dashboard, "10.0.0.7").get("/", headers=twice).status_code == 401


def test_an_auth_of_ones_own_may_be_a_coroutine(store, serve):
    async def auth(request: Request) -> Viewer | None:
        return Viewer(request.headers["x-name"]) if "x-name" in request.headers else None

    client = serve(Dashboard(store.queue, auth=auth), "10.0.0.7")
    assert client.get("/").status_code == 401
    assert client.get("/", headers={"X-Name": "ann"}).status_code == 200


def test_weak_or_wrong_settings_of_an_auth_are_refused_at_once():
    for make in (
        lambda: BasicAuth({"ann": "short"}),
        lambda: BasicAuth({"a:b": SECRET}),
        lambda: TokenAuth({"x": ""}),
        lambda: TrustedHeader("X-User", proxies=["here"]),
    ):
        with pytest.raises(ConfigurationError):
            make()


def state_of(store) -> tuple[object, ...]:
    queue = store.queue
    jobs = [(one.id, one.status, one.data) for one in queue.find(limit=50).jobs]
    schedule = store.inspector.schedule("hourly")
    return (*jobs, *[(info.name, info.is_paused) for info in queue.queues()], schedule.is_paused)
