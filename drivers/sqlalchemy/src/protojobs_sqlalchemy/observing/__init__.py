"""Notes beside the jobs: counts by the minute, depths, failures, the audit log."""
