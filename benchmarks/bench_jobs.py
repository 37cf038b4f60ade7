"""The jobs of the benchmark as protojobs knows them: `protojobs worker --app bench_jobs`."""

from __future__ import annotations

import time

import counted
from protojobs import job


@job(name="noop")
def noop() -> None:
    """Nothing, but counted."""
    counted.noop()


@job(name="stamp")
def stamp(sent_ns: int) -> None:
    """Note when it was pushed and when it started."""
    counted.stamp(sent_ns)


@job(name="began", max_retries=0)
def began(sent_ns: int) -> None:
    """As `stamp`, of a job whose end somebody waits for."""
    counted.stamp(sent_ns)


@job(name="began-keeping", store_result=True, max_retries=0)
def began_keeping() -> int:
    """When it began, in nanoseconds since 1970."""
    return time.time_ns()
