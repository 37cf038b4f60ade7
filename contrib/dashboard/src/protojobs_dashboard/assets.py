"""The files that pages load: read once, served under a path with their hash, so that a browser may keep them."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

__all__ = ["asset_path", "serve_asset"]

_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def asset_path(name: str) -> str:
    """Where the file is, inside the dashboard."""
    return f"/static/{_version()}/{name}"


async def serve_asset(request: Request) -> Response:
    """A file of ours. Under the hash of another version too, for pages that were opened before an upgrade."""
    name = request.path_params["name"]
    body = _assets().get(name)
    if body is None:
        return PlainTextResponse("There is no such file.\n", 404)
    is_current = request.path_params["version"] == _version()
    keep = "public, max-age=31536000, immutable" if is_current else "no-store"
    media_type = _TYPES[name[name.rindex(".") :]]
    return Response(body, headers={"Cache-Control": keep}, media_type=media_type)


@cache
def _assets() -> dict[str, bytes]:
    return dict(_found(files("protojobs_dashboard") / "static", ""))


def _found(folder: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _found(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(tuple(_TYPES)):
            found.append((prefix + entry.name, entry.read_bytes()))
    return sorted(found)


@cache
def _version() -> str:
    digest = hashlib.sha256()
    for name, body in _assets().items():
        digest.update(name.encode() + b"\0" + body)
    return digest.hexdigest()[:16]
