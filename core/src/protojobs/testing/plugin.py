"""The pytest plugin: one fixture, `job_queue`. pytest loads it wherever protojobs is installed, so it loads little."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from protojobs import testing

if TYPE_CHECKING:
    from protojobs.testing import TestQueue

__all__ = ["job_queue"]


@pytest.fixture
def job_queue() -> TestQueue:
    """A queue for this test alone, on a memory store whose time stands still: see `protojobs.testing.TestQueue`.

    For settings or plugins of your own define a fixture of this name that returns a `TestQueue(...)`.
    """
    return testing.TestQueue()
