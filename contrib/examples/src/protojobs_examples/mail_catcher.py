"""An SMTP server on this machine that keeps what it gets and sends nothing on: for the demo, and for tests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from email import message_from_bytes, policy
from types import TracebackType
from typing import TYPE_CHECKING

from aiosmtpd.smtp import SMTP

if TYPE_CHECKING:
    from typing import Self

    from aiosmtpd.smtp import Envelope, Session

__all__ = ["CaughtMail", "MailCatcher"]

_START_S = _END_S = 5.0


class CaughtMail:
    """One accepted message: its envelope and its content."""

    def __init__(self, sender: str, recipients: Sequence[str], content: bytes) -> None:
        self.sender = sender
        self.recipients = list(recipients)
        self.message = message_from_bytes(content, policy=policy.default)


class MailCatcher:
    """Use it as a context manager; `port` is one that was free. Listens on 127.0.0.1 only, on a thread of its own.

    `refusals` maps a recipient to the answers that it gets before it is accepted, one for each attempt:
    `{"jo@example.com": ["451 4.3.2 busy, try again later"]}` is busy once.
    """

    host = "127.0.0.1"

    def __init__(self, refusals: Mapping[str, Sequence[str]] | None = None) -> None:
        self.port = 0
        self.caught: list[CaughtMail] = []
        self.refused: list[str] = []
        self._refusals = {who: list(answers) for who, answers in (refusals or {}).items()}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mail-catcher", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(_START_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(_END_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_END_S)
        self._loop.close()

    async def _listen(self) -> None:
        make = lambda: SMTP(self, hostname="mail-catcher", enable_SMTPUTF8=True, loop=self._loop)  # noqa: E731
        self._server = await self._loop.create_server(make, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for connection in others:  # a client that was cut off leaves its half of the talk behind
            connection.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    # The names of the handlers are aiosmtpd's.

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Refuse the recipient as long as there are refusals for it, then accept it."""
        if answers := self._refusals.get(address):
            self.refused.append(address)
            return answers.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Keep the message."""
        content = envelope.content
        raw = content.encode() if isinstance(content, str) else content or b""
        self.caught.append(CaughtMail(envelope.mail_from or "", envelope.rcpt_tos, raw))
        return "250 kept"
