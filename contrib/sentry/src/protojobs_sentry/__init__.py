"""Failed jobs, their traces and the check-ins of schedules in Sentry.

    $ export PROTOJOBS_SENTRY_REPORT=failed

The application sets up the SDK by `sentry_sdk.init`. Programs that have this installed and do not ask for it import
nothing of Sentry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from protojobs_sentry.settings import SentrySettings

if TYPE_CHECKING:
    from protojobs_sentry.reporting import SentryPlugin

__all__ = ["SentryPlugin", "SentrySettings"]


def __getattr__(name: str) -> object:
    if name == "SentryPlugin":
        from protojobs_sentry.reporting import SentryPlugin

        return SentryPlugin
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
