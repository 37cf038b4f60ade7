"""Traces and metrics of protojobs by OpenTelemetry."""
