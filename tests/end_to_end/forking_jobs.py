"""Jobs for test_forking_jobs.py, in a module that a child process can import."""

from __future__ import annotations

import os
import sys

from crew import write_entry

from protojobs import job

JOURNAL = os.environ.get("FORKING_JOURNAL", os.devnull)


def fork(ends: str) -> str:
    """Make a copy of this process, as a script would. It says who it is, and ends as it is told."""
    if os.fork() == 0:
        write_entry(JOURNAL, "copy")
        if ends == "by sys.exit":
            sys.exit(0)
        if ends == "by an exception":
            raise RuntimeError("the copy's own trouble")
    return ends


@job(name="forks.thread", queue="work", executor="thread", max_retries=0)
def forks_in_a_thread(ends: str) -> str:
    return fork(ends)


@job(name="forks.process", queue="work", executor="process", max_retries=0)
def forks_in_a_child(ends: str) -> str:
    return fork(ends)


@job(name="forks.async", queue="work", max_retries=0)
async def forks_on_the_loop(ends: str) -> str:
    return fork(ends)


@job(name="count.thread", queue="work", executor="thread", max_retries=0)
def count_in_a_thread(number: int) -> None:
    write_entry(JOURNAL, "ran", number=number)


@job(name="count.process", queue="work", executor="process", max_retries=0)
def count_in_a_child(number: int) -> None:
    write_entry(JOURNAL, "ran", number=number)


@job(name="count.async", queue="work", max_retries=0)
async def count_on_the_loop(number: int) -> None:
    write_entry(JOURNAL, "ran", number=number)
