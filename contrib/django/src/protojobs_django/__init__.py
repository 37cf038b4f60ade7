"""protojobs in a Django site: the jobs are in the site's database, and what pushes them joins its transactions.

INSTALLED_APPS = [..., "protojobs_django"]

from protojobs_django import queue

with transaction.atomic():
    user = User.objects.create(username=name)
    queue.push(welcome.bind(user.pk))     # stored with the user, or not at all
"""

from __future__ import annotations

from protojobs_django.current import queue
from protojobs_django.driver import DjangoDriver

__all__ = ["DjangoDriver", "queue"]
