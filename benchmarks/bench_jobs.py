"""The jobs of the benchmark as protojobs knows them: `protojobs worker --app bench_jobs`."""

from __future__ import annotations

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
