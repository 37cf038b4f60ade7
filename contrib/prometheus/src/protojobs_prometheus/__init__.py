"""Prometheus metrics for protojobs."""
