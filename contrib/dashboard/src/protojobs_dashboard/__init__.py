"""A dashboard for protojobs, closed by default."""
