"""The settings `PROTOJOBS_SENTRY_*`: which failures are reported, and what else is sent."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

__all__ = ["SentrySettings"]


class SentrySettings(Struct, frozen=True, kw_only=True):
    """`report`: `failed` sends an event for each job that is given up, `attempts` for each failed attempt, `none` none.

    `check_ins`: whether runs of all schedules check in. `local_variables`: whether an event may hold the local
    variables of the job's code, and so the job's data; `include_local_variables` of the SDK must be on as well.
    """

    report: Literal["failed", "attempts", "none"] = "failed"
    check_ins: bool = False
    local_variables: bool = False
