"""A dashboard for protojobs, closed by default.

from protojobs_dashboard import BasicAuth, Dashboard

app.mount("/ops/jobs", Dashboard(queue, auth=BasicAuth({"ann": "a long secret"})))
"""

from __future__ import annotations

from protojobs.inspector import Role, Viewer
from protojobs_dashboard.app import Dashboard
from protojobs_dashboard.auth import Auth, BasicAuth, TokenAuth, TrustedHeader
from protojobs_dashboard.mounting import django_urls, mount_flask

__all__ = [
    "Auth",
    "BasicAuth",
    "Dashboard",
    "Role",
    "TokenAuth",
    "TrustedHeader",
    "Viewer",
    "django_urls",
    "mount_flask",
]
