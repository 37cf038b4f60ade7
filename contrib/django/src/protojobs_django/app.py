"""For `--app protojobs_django.app:queue`: to import this sets Django up, which imports the jobs of all apps.

Workers and the child processes in which they run jobs begin with it. DJANGO_SETTINGS_MODULE names the site's settings.
"""

from __future__ import annotations

import django
from django.apps import apps

from protojobs_django.current import current_queue

__all__ = ["queue"]

if not apps.ready:
    django.setup()

queue = current_queue()
"""The site's JobQueue."""
