"""A job that takes its process down, for the workers of faults.jobs: `protojobs worker --app faults.killers`."""

from __future__ import annotations

import os

from protojobs import JobContext, job

from .jobs import WORKER_VARIABLE, act, act_apart, journal

__all__ = ["DEATHS_MAX", "act", "act_apart", "exit_at_once"]

DEATHS_MAX = 50  # attempts that it would have, were its deaths only failures


@job(name="faults.exit_at_once", queue="work", max_retries=DEATHS_MAX, backoff=[0.1], timeout=0)
def exit_at_once(ctx: JobContext) -> None:
    """Say so, and end the process without a word to anybody."""
    journal().write("killing", worker=os.environ[WORKER_VARIABLE], id=ctx.id, claim_seq=ctx.claim_seq)
    os._exit(1)
