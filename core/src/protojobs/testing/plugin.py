"""The pytest plugin: `job_queue`, and `job_queue_store` which says where its jobs are kept.

pytest loads it wherever protojobs is installed, so it loads little.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from protojobs import testing

if TYPE_CHECKING:
    from protojobs.port.driver import Store
    from protojobs.testing import TestQueue

__all__ = ["job_queue", "job_queue_store"]


@pytest.fixture
def job_queue_store() -> str | Store:
    """Where `job_queue` keeps its jobs: in memory. Define a fixture of this name that returns a URL or a driver.

    A URL must lead to a store of the tests' own: its tables are made, and it is emptied after each test. A driver is
    yours to set up and to clean, such as `protojobs_sqlalchemy.testing.inside(connection)`, which a rollback cleans.
    """
    return "memory://"


@pytest.fixture
def job_queue(job_queue_store: str | Store) -> Iterator[TestQueue]:
    """A queue for this test alone, on the store that `job_queue_store` names: see `protojobs.testing.TestQueue`.

    For settings or plugins of your own define a fixture of this name that returns a `TestQueue(...)`.
    """
    queue = testing.TestQueue(store=job_queue_store)
    if isinstance(job_queue_store, str):
        with queue:
            queue.check_empty()
            yield queue
            queue.reset()
    else:
        queue.check_empty()
        yield queue
