"""Mutants of what is seen: notes, groups of failures, pages and ages of queues."""

from __future__ import annotations

from mutants.mutant import mutant

NOTES, OBSERVING, INSPECTION = "notes.py", "observing.py", "inspection.py"

OBSERVING_MUTANTS = (
    mutant(
        "a count that is sent again is added",
        "observing",
        (
            NOTES,
            "rows[worker, rollup.queue, rollup.job_name, rollup.result] = rollup",
            "rows[worker, rollup.queue, rollup.job_name, len(rows)] = rollup",
        ),
    ),
    mutant(
        "a span holds its last moment too", "observing", (NOTES, "if since <= at < until)", "if since <= at <= until)")
    ),
    mutant(
        "two may sample one minute",
        "observing",
        (
            OBSERVING,
            "from protojobs.port.observing import (\n",
            "from protojobs.clock import SYSTEM_CLOCK\nfrom protojobs.port.observing import (\n",
        ),
        (
            OBSERVING,
            "        return False\n",
            "        return False\n"
            "    state.lock.release()  # the lock is let go between looking and writing\n"
            "    SYSTEM_CLOCK.sleep(0.002)\n"
            "    state.lock.acquire()\n",
        ),
    ),
    mutant(
        "of many runs the first are told",
        "observing",
        (OBSERVING, "sorted(runs)[-ATTEMPTS_MAX:]", "sorted(runs)[:ATTEMPTS_MAX]"),
    ),
    mutant(
        "of failures alike the first notes give way",
        "observing",
        ("scripts/record.lua", "drop(job_id, runs, alike[ALIKE_MAX])", "drop(job_id, runs, alike[1])"),
        store="valkey",
    ),
    mutant(
        "hours are kept as long as minutes",
        "observing",
        (NOTES, "_drop(rows, kept_since(period_s, now))", "_drop(rows, kept_since(MINUTE, now))"),
    ),
    mutant(
        "a retried failure stays in its group",
        "grouping",
        ("state.py", "            alike.remove((failure.failed_at, failure.id))\n", ""),
    ),
    mutant(
        "a fingerprint outlives its last failure",
        "grouping",
        ("scripts/jobs.lua", " else call('ZREM', CAUSES, fingerprint) end", " end"),
        store="valkey",
    ),
    mutant(
        "observing is there and not claimed",
        "honesty",
        ("driver.py", "durable=False, observing=True", "durable=False"),
    ),
    mutant(
        "any text is a cursor",
        "listing",
        (
            "driver.py",
            '        """The cursor is the last id that was examined."""\n        rules.check_cursor(cursor)\n',
            '        """The cursor is the last id that was examined."""\n',
        ),
    ),
    mutant(
        "a queue of no name means all",
        "listing",
        ("inspection.py", '    if which.queue == "":', "    if which.queue is which:"),
        store="valkey",
    ),
    mutant(
        "in a paused queue no job waits",
        "counting",
        (
            INSPECTION,
            "for lane in queue.lanes.values() if (key := lane.first())]",
            "for lane in queue.lanes.values() if not queue.is_paused and (key := lane.first())]",
        ),
    ),
    mutant(
        "a page of queues begins with the last one again",
        "counting",
        (
            INSPECTION,
            "for name in state.queues if name > after_name)",
            "for name in state.queues if name >= after_name)",
        ),
    ),
)
