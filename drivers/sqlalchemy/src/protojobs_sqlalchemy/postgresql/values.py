"""The parameters of the statements in `statements.py`. Arrays go as text, which costs psycopg a fifth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from protojobs.port.records import NewJob, Settlement
from protojobs_sqlalchemy.tables.types import are_job_ids, is_job_id
from protojobs_sqlalchemy.verbs.inserting import kind_of

__all__ = ["are_alike", "columns_of", "completions_of", "span_of", "values_of"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BETWEEN = "\x1f"


def are_alike(jobs: Sequence[NewJob]) -> bool:
    """Whether they differ in nothing but their ids and data."""
    return len(jobs) == 1 or len(set(map(kind_of, jobs))) == 1


def values_of(jobs: Sequence[NewJob]) -> dict[str, object]:
    """Jobs that are alike, for ENQUEUE_ALIKE."""
    job = jobs[0]
    return {
        "ids": _numbers([each.id for each in jobs]),
        "datas": _payloads([each.data for each in jobs]),
        "queue": job.queue,
        "class": job.job_class,
        "name": job.job_name,
        "retries": job.max_retries,
        "timeout": job.timeout,
        "moment": job.available_at,
        "delay": timedelta(seconds=job.delay),
        "priority": job.priority,
        "retry_delay": job.retry_delay,
        "policy": job.retry_policy,
        "meta": job.meta,
    }


def columns_of(jobs: Sequence[NewJob]) -> dict[str, object]:
    """Jobs of several kinds, for ENQUEUE."""
    return {
        "ids": _numbers(job.id for job in jobs),
        "queues": _texts(job.queue for job in jobs),
        "classes": _texts(job.job_class for job in jobs),
        "names": _texts(job.job_name for job in jobs),
        "datas": _texts(job.data for job in jobs),
        "retries": _numbers(job.max_retries for job in jobs),
        "timeouts": _numbers(job.timeout for job in jobs),
        "moments": _texts(None if job.available_at is None else job.available_at.isoformat() for job in jobs),
        "delays": _texts(f"{round(job.delay * 1e6)} microseconds" if job.delay else "0" for job in jobs),
        "priorities": _numbers(job.priority for job in jobs),
        "retry_delays": _numbers(job.retry_delay for job in jobs),
        "policies": _texts(job.retry_policy for job in jobs),
        "metas": _texts(job.meta for job in jobs),
    }


def span_of(jobs: Sequence[NewJob]) -> dict[str, object]:
    """Where jobs of these ids would be in the archive, for the statements that look there.

    A UUIDv7 says when it was made, and no job ends before that; "-infinity" where one of them is of another kind.
    """
    ids = [job.id for job in jobs]
    first, since = min(ids), "-infinity"
    if all(job_id[14] == "7" for job_id in ids):
        since = (_EPOCH + timedelta(milliseconds=int(first[:13].replace("-", ""), 16))).isoformat()
    return {"first": first, "last": max(ids), "since": since}


def completions_of(done: Sequence[Settlement], shard: int) -> dict[str, object]:
    """Plain completions of one holder's claims, for the statements of `Settling`."""
    known, ids = done, ",".join([s.id for s in done])
    if not are_job_ids(ids, len(done)):
        known = [s for s in done if is_job_id(s.id)]
        ids = ",".join([s.id for s in known])
    return {
        "ids": f"{{{ids}}}",
        "seqs": _numbers([s.claim_seq for s in known]),
        "holder": done[0].reserved_by,
        "sent": len(done),
        "shard": shard,
    }


def _numbers(values: Iterable[object]) -> str:
    """The text of an array of what needs no quotes: numbers, and UUIDs that were checked."""
    return "{" + ",".join(map(str, values)) + "}"


def _payloads(texts: Sequence[str]) -> str:
    """As `_texts`, for many that are JSON: escaped all at once, since no JSON has a control character as it is."""
    joined = _BETWEEN.join(texts)
    if joined.count(_BETWEEN) != len(texts) - 1:
        return _texts(texts)
    return '{"' + joined.replace("\\", "\\\\").replace('"', '\\"').replace(_BETWEEN, '","') + '"}'


def _texts(values: Iterable[str | None]) -> str:
    """The text of an array of texts."""
    quoted = ["NULL" if text is None else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for text in values]
    return "{" + ",".join(quoted) + "}"
