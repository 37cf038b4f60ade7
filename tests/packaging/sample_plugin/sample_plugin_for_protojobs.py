"""Appends a line to the file named by SAMPLE_PLUGIN_FILE for every job that was queued or ran."""

import os

from protojobs import hookimpl


def note(*words: object) -> None:
    if path := os.environ.get("SAMPLE_PLUGIN_FILE"):
        with open(path, "a", encoding="utf-8") as file:
            print(*words, file=file)


@hookimpl
def protojobs_job_queued(event: object) -> None:
    note("queued", event.get("job_class"), event.get("queue"))


@hookimpl
def protojobs_job_processed(event: object) -> None:
    note("processed", event.get("job_class"), event.get("queue"))


@hookimpl
def protojobs_job_failed(event: object) -> None:
    note("failed", event.get("job_class"), event.get("queue"))
