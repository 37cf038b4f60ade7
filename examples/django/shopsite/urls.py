"""The shop's pages, the admin, and the dashboard of the jobs with the admin's login."""

from django.contrib import admin
from django.contrib.admin.views.decorators import staff_member_required
from django.urls import URLPattern, include, path
from shop import views
from starlette.requests import Request

from protojobs_dashboard import Dashboard, Role, Viewer, django_urls
from protojobs_django import queue


def viewer(request: Request) -> Viewer | None:
    """Staff with the right to see jobs; another right is needed to act. The name stands in the audit log."""
    user = request.scope["django.request"].user
    if not user.is_staff or not user.has_perm("shop.see_jobs"):
        return None
    return Viewer(user.get_username(), Role.OPERATE if user.has_perm("shop.operate_jobs") else Role.READ)


def with_login(patterns: list[URLPattern]) -> list[URLPattern]:
    """Send whoever is not signed in as staff to the admin's login page first."""
    for pattern in patterns:
        pattern.callback = staff_member_required(pattern.callback)
    return patterns


urlpatterns = [
    path("orders", views.order),
    path("orders/<int:number>", views.show),
    path("admin/jobs/", include(with_login(django_urls(Dashboard(queue, auth=viewer))))),
    path("admin/", admin.site.urls),
]
