"""What a page costs: at most a dozen statements, however many jobs there are."""

from __future__ import annotations

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from protojobs_dashboard import Dashboard
from protojobs_dashboard.app import PAGES

STATEMENTS_MAX = 12


def test_every_page_takes_at_most_a_dozen_statements(make_store, serve, examined, sqlite_url):
    store = make_store(sqlite_url)
    client = serve(Dashboard(store.queue))
    begun = client.post("/api/v1/operations/start", json={"action": "retry", "query": "queue:nothing"})
    store.operation_id = begun.json()["id"]
    assert set(store.paths()) == set(PAGES)
    counts: dict[str, list[str]] = {}
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    client.get("/")  # the connection is open, and what is asked once is known
    examined(client)
    event.listen(Engine, "before_cursor_execute", note)
    try:
        shown = {**store.paths(), "ready": f"/jobs/{store.ready}", "held": f"/jobs/{store.held}/why"}
        for route, path in shown.items():
            statements.clear()
            assert client.get(path).status_code == 200, path
            counts[route] = list(statements)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    store.queue.close()
    assert counts["/jobs"], "statements are counted at all"
    over = {route: (len(found), found) for route, found in counts.items() if len(found) > STATEMENTS_MAX}
    assert not over, "\n".join(f"{route}: {found}" for route, found in over.items())


@pytest.mark.parametrize("path", ["/operations", "/livez"])
def test_what_shows_nothing_of_the_store_asks_it_little(path, make_store, serve, monkeypatch):
    store = make_store("memory://")
    client = serve(Dashboard(store.queue))

    def refused(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("the store was asked")

    for name in ("stats", "find", "queues", "workers", "failed"):
        monkeypatch.setattr(type(store.queue.driver), name, refused)
    assert client.get(path).status_code == 200
    store.queue.close()
