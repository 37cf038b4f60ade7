"""The messages that are sent: all alerts of one look together, as JSON and as text. No job's data is in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Literal

import msgspec
from msgspec import Struct

from protojobs_alerts.findings import Finding, in_words

__all__ = ["NOTICES_MAX", "Message", "Notice", "messages_of"]

NOTICES_MAX = 50  # in one message
VERSION = 1


class Notice(Struct, frozen=True, kw_only=True):
    """One alert in a message. `held_back`: how often it happened again since the message before."""

    status: Literal["firing", "resolved"]
    finding: Finding
    lasts_s: float = 0.0
    held_back: int = 0

    @property
    def text(self) -> str:
        """For people."""
        more = f" {self.held_back:,} more since the last message." if self.held_back else ""
        if self.status == "resolved":
            return f"Over: {self.finding.text}{more}"
        lasts = f" It has lasted {in_words(self.lasts_s)}." if self.lasts_s else ""
        return f"{self.finding.text}{more}{lasts}"


class Message(Struct, frozen=True, kw_only=True):
    """`id` is the same for every try to deliver it, so that a receiver knows it again. `name`: which installation."""

    id: str
    at: datetime
    name: str
    notices: tuple[Notice, ...]

    @property
    def subject(self) -> str:
        """One line, for a mail."""
        firing = sum(notice.status == "firing" for notice in self.notices)
        if len(self.notices) == 1:
            return f"[{self.name}] {self.notices[0].text}"[:200]
        return f"[{self.name}] {firing} alerts, {len(self.notices) - firing} over"

    @property
    def text(self) -> str:
        """All of it for people, a line for each."""
        return "\n".join(notice.text for notice in self.notices)

    def as_json(self) -> bytes:
        """The body of a webhook; docs/how-to/alerts.md names the fields."""
        alerts = [
            {
                "status": notice.status,
                "kind": notice.finding.kind,
                "queue": notice.finding.queue,
                "job_name": notice.finding.job_name,
                "error": notice.finding.error,
                "count": notice.finding.count,
                "seconds": notice.finding.seconds,
                "lasts_s": notice.lasts_s,
                "held_back": notice.held_back,
                "text": notice.text,
            }
            for notice in self.notices
        ]
        body = {
            "version": VERSION,
            "id": self.id,
            "at": self.at,
            "name": self.name,
            "text": self.text,
            "alerts": alerts,
        }
        return msgspec.json.encode(body)


def messages_of(notices: Sequence[Notice], *, name: str, at: datetime, ids: Iterator[str]) -> Iterator[Message]:
    """As few messages as hold all of them."""
    for start in range(0, len(notices), NOTICES_MAX):
        yield Message(id=next(ids), at=at, name=name, notices=tuple(notices[start : start + NOTICES_MAX]))
