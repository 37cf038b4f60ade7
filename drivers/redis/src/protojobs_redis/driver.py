"""RedisDriver: the hot path of the port. Each verb is one script, so one round trip and one atomic step."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct
from msgspec.msgpack import Decoder

from protojobs.entropy import fresh_id
from protojobs.errors import ContractBroken, OptionInvalid, shown
from protojobs.port.driver import PORT_VERSION
from protojobs.port.records import (
    BATCH_BYTES_MAX,
    Capabilities,
    ClaimedJob,
    ClaimReply,
    Enqueued,
    Fence,
    NewJob,
    Settled,
    Settlement,
)
from protojobs.port.unreadable import set_aside
from protojobs_redis.administration import Administration
from protojobs_redis.diagnosing import Diagnosing
from protojobs_redis.handle import check_batch
from protojobs_redis.leases import Leases, lease_lost
from protojobs_redis.observing import Observing
from protojobs_redis.packing import (
    SPOILT,
    Answered,
    Lent,
    Time,
    blob_of,
    claimed,
    claims,
    encode,
    held_by,
    micros,
    moment,
    pushed,
    texts,
)
from protojobs_redis.schedules import Schedules
from protojobs_redis.settling import in_order, sorted_out
from protojobs_redis.storage import Storage
from protojobs_redis.transfer import Transfer

__all__ = ["RedisDriver"]


class _Turn(Struct, array_like=True, gc=False):
    is_lease_lost: bool
    completed: list[Answered]
    others: list[Answered]
    spoilt: list[tuple[str, str, int]]  # what the lanes hold and is no job that could be lent: id, queue, priority
    now: Time


_turns, _lent, _ids = Decoder(_Turn), Decoder(list[Lent]), Decoder(list[str])
_NO_JOB = "The stored row cannot be read: it is not what a driver of protojobs writes."


class RedisDriver(Storage, Leases, Observing, Administration, Transfer, Schedules, Diagnosing):
    """Jobs in Redis or Valkey; implements `Store`.

    `url` is `redis://[user:password@]host[:port][/db]`, `rediss://` for TLS, `valkey://`, `valkeys://`, `unix:///path`,
    or `redis+sentinel://host:port,host:port/service[/db]`. A cluster is recognised (or said by `?cluster=true`, with
    several nodes to begin with: `redis://host:port,host:port`). Other options in the URL go to redis-py:
    `?socket_timeout=2&ssl_ca_certs=...`.

    All keys of a `namespace` (default "protojobs") share one hash tag, so it lives in one slot of a cluster and is one
    atomic domain; to use more of a cluster, use several. Nothing is opened before the first verb, and no verb waits for
    an answer for more than `socket_timeout` (5 seconds). The server must never evict keys (`noeviction`).

    With `wait_replicas` (default 0, also `?wait_replicas=1`) what is stored, settled, cancelled or retried counts only
    when so many replicas say, within `wait_timeout` (1 second), that they have it: else StoreUnavailable.
    """

    port_version = PORT_VERSION
    capabilities = Capabilities(observing=True)

    def __repr__(self) -> str:
        return f"<RedisDriver {self._connections.address.shown} {self.namespace}>"

    def now(self) -> datetime:
        """Store time."""
        return moment(self._number("now"))

    def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        """See Driver.enqueue."""
        check_batch(jobs)
        if not jobs:
            return []
        said: list[object] = []
        size = 0
        for job in jobs:
            small = pushed(job)
            said += small
            size += small[4]
        if size > BATCH_BYTES_MAX:
            raise OptionInvalid(f"{size} payload bytes are too many.", mend=f"Send at most {BATCH_BYTES_MAX}.")
        letters = self._letters("enqueue", encode(said), *map(blob_of, jobs))
        return [
            Enqueued(id=job.id, duplicate_of=job.id if letter == "d" else None)
            for job, letter in zip(jobs, letters, strict=True)
        ]

    def claim(self, worker: str, queues: Sequence[str], *, slots: int, limit: int) -> list[ClaimedJob]:
        """See Driver.claim."""
        turn = self._turn((), worker, queues, slots, max(1, limit))
        if turn.lease_lost:
            raise lease_lost(worker)
        return list(turn.claimed)

    def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        """See Driver.settle."""
        if not settlements:
            return []
        return list(self._turn(settlements, "", (), 0, 0).settled)

    def settle_and_claim(
        self, worker: str, settlements: Sequence[Settlement], queues: Sequence[str], *, slots: int, limit: int
    ) -> ClaimReply:
        """See Driver.settle_and_claim."""
        return self._turn(settlements, worker, queues, slots, limit)

    def _turn(
        self, settlements: Sequence[Settlement], worker: str, queues: Sequence[str], slots: int, limit: int
    ) -> ClaimReply:
        check_batch(settlements)
        said = sorted_out(settlements)
        answer = self._run(
            "turn_any" if said.others else "turn",
            said.holder,
            encode(said.completed),
            encode(said.others),
            worker,
            texts(dict.fromkeys(queues)),
            slots,
            limit,
            is_kept=bool(settlements),
        )
        if not isinstance(answer, bytes):
            raise ContractBroken(f"The script turn answered {shown(answer)}.")
        ends = 4 + int.from_bytes(answer[:4])
        with self._connections.translating():
            turn = _turns.decode(answer[4:ends])
        try:
            lent: Sequence[ClaimedJob] = claims(_lent.decode(memoryview(answer)[ends:]))
        except SPOILT:
            lent = self._readable(worker, since=turn.now)
        if turn.spoilt:
            self._set_aside(turn.spoilt)
        answers = in_order(said, turn.completed, turn.others) if said.others else turn.completed
        return ClaimReply(
            settled=tuple([Settled(*answer) for answer in answers]),
            claimed=tuple(lent),
            lease_lost=turn.is_lease_lost,
        )

    def held(self, worker: str) -> list[ClaimedJob]:
        """See Driver.held."""
        return self._readable(worker)

    def _readable(self, worker: str, *, since: Time | None = None) -> list[ClaimedJob]:
        """What the worker holds, all or what it was lent at that moment. Settles what cannot be read as failed."""
        jobs: list[ClaimedJob] = []
        unreadable: list[Settlement] = []
        ids = self._packed(_ids, "held", worker)
        for entry in self._entries(ids):
            holder, lent_at, claim_seq = held_by(entry)
            if holder == worker and since in (None, lent_at):
                job = claimed(entry)
                if isinstance(job, ClaimedJob):
                    jobs.append(job)
                else:
                    claim = Fence(id=entry.id, claim_seq=claim_seq, reserved_by=worker)
                    unreadable.append(set_aside(claim, job))
        self.settle(unreadable)
        return jobs

    def _set_aside(self, spoilt: Sequence[tuple[str, str, int]]) -> None:
        """Leave failed jobs in place of those whose rows cannot be read."""
        why = set_aside(Fence(id="", claim_seq=0, reserved_by=""), _NO_JOB).error
        self._run("set_aside", encode([(*place, fresh_id(), why) for place in spoilt]))

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        """See Driver.wait."""
        return self._doorbell.wait(queues, timeout, micros(self.time_offset))
