"""The files that pages load: ours and the vendored ones, unchanged, from nowhere else, kept by their hash."""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path

import protojobs_dashboard

PACKAGE = Path(protojobs_dashboard.__file__).parent
VENDOR = PACKAGE / "static" / "vendor"


def test_the_vendored_files_are_those_that_were_reviewed():
    table = tomllib.loads((VENDOR / "VENDOR.toml").read_text())
    files = {path.name for path in VENDOR.iterdir()} - {"VENDOR.toml"}
    assert files == set(table) | {facts["licence_file"] for facts in table.values()}
    for name, facts in table.items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == facts["sha256"], name
        assert facts["version"] and facts["licence"] and facts["name"]


def test_no_page_and_no_file_of_ours_names_another_host():
    own = [*PACKAGE.glob("static/*.*"), *PACKAGE.glob("templates/*.html")]
    assert len(own) > 20
    for path in own:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]+\.[a-z]|@import", text), path.name
        assert path.suffix != ".css" or "url(" not in text


def test_templates_hold_no_inline_code_and_nothing_that_needs_eval():
    for path in PACKAGE.glob("templates/*.html"):
        text = path.read_text()
        assert not re.search(r"\sstyle=|\son[a-z]+=|<style|hx-on|javascript:|js:|\|\s*safe|autoescape", text), path.name
        assert not re.search(r"<script(?! src=)", text), path.name
        assert not re.search(r'hx-trigger="[^"]*\[', text), path.name


def test_assets_are_kept_under_their_hash_and_not_under_another(client):
    page = client.get("/").text
    paths = re.findall(r'"(/static/[^"]+)"', page)
    assert {path.rpartition("/")[2] for path in paths} == {
        *("icon.svg", "style.css", "theme.js", "htmx.min.js", "hx-sse.min.js", "dashboard.js")
    }
    for path in paths:
        answer = client.get(path)
        assert answer.status_code == 200 and answer.content
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["x-content-type-options"] == "nosniff"
        older = "/static/0000/" + path.split("/", 3)[3]
        assert client.get(older).headers["cache-control"] == "no-store"
    kinds = {path.rpartition(".")[2]: client.get(path).headers["content-type"].partition(";")[0] for path in paths}
    assert kinds == {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def test_only_assets_are_served_as_such(client):
    for name in ("vendor/VENDOR.toml", "../app.py", "..%2fapp.py", "%2e%2e/app.py", "", "style.css/", "/etc/passwd"):
        assert client.get(f"/static/0000/{name}").status_code == 404, name
