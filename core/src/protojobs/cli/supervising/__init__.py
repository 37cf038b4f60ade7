"""The processes that work: the supervisor and its workers, how they are stopped, and the checks before they start."""
