"""What tests of jobs, workers and drivers need. The conformance kit is `protojobs.testing.conformance`."""

from protojobs.testing.flaky import FlakyDriver
from protojobs.testing.manual_clock import ManualClock

__all__ = ["FlakyDriver", "ManualClock"]
