"""`SendEmailJob`: an e-mail by SMTP, retried while the server is busy, given up at once when it says no."""

from __future__ import annotations

import hashlib
import mimetypes
import re
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, getaddresses
from pathlib import Path
from typing import ClassVar

import msgspec

from protojobs import Job, JobContext
from protojobs_examples._folders import folder_from_environment, inside
from protojobs_examples._smtp import MailRefused, MailServerBusy, SmtpSettings, deliver

__all__ = ["Email", "MailRefused", "MailServerBusy", "SendEmailJob", "SmtpSettings"]

RECIPIENTS_MAX = 100  # what RFC 5321 asks every server to take at once
SUBJECT_CHARS_MAX = 500
ATTACHMENTS_MAX = 20
ATTACHMENT_BYTES_MAX = 20 * 1024 * 1024  # together; most servers refuse more than 25 MiB after encoding


class Email(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to send, and to whom. Checked by push: a bad address is the caller's error, not the worker's.

    Addresses are `jo@example.com` or `Jo Doe <jo@example.com>`. With `html` the mail has both forms, `body` being the
    plain one. `attachments` are paths inside the worker's attachments folder.
    """

    to: str | list[str]
    subject: str
    body: str
    html: str | None = None
    cc: list[str] = []
    bcc: list[str] = []
    reply_to: str | None = None
    attachments: list[str] = []

    def __post_init__(self) -> None:
        # msgspec calls this when it decodes, too: what raises here is refused by push, with the place in the data.
        everybody = self.recipients
        if not 1 <= len(everybody) <= RECIPIENTS_MAX:
            raise ValueError(f"an e-mail goes to 1 to {RECIPIENTS_MAX} recipients, not {len(everybody)}")
        for text in (*everybody, *([self.reply_to] if self.reply_to else [])):
            parse_address(text)
        if len(self.subject) > SUBJECT_CHARS_MAX or _has_controls(self.subject):
            raise ValueError(f"a subject is one line of at most {SUBJECT_CHARS_MAX} characters")
        if len(self.attachments) > ATTACHMENTS_MAX:
            raise ValueError(f"at most {ATTACHMENTS_MAX} attachments")

    @property
    def recipients(self) -> list[str]:
        """Everybody who gets it: to, cc and bcc."""
        return [*([self.to] if isinstance(self.to, str) else self.to), *self.cc, *self.bcc]


class SendEmailJob(Job[Email]):
    """Send one e-mail.

        queue.push(SendEmailJob, {"to": "jo@example.com", "subject": "Welcome", "body": "Hello Jo!"})

    *Configuration* is the worker's: MAIL_HOST, MAIL_PORT, MAIL_SECURITY, MAIL_USER, MAIL_PASSWORD, MAIL_FROM and
    MAIL_ATTACHMENTS in its environment, or the class attributes `smtp` and `attachments_folder` of a subclass. None of
    it is ever in a job's data, which is stored, shown and logged.

    *Retries*: a server that is busy or away (`MailServerBusy`) is tried again after 1, 2, 4, 8 and 16 minutes. Anything
    else, a mailbox that does not exist or a mistake in this code, would not get better by waiting: the job fails at
    once, and waits among the failed jobs for somebody to mend the cause.

    *Twice?* A job runs at least once. If the connection dies after the text was sent and before the server's answer,
    nobody can know whether it was accepted, and the next run sends it again: with the same Message-ID, made from the
    job's id, so mail programs and servers can tell that it is the same message.

    *Several recipients* are one message, accepted for all or for none. For recipients that must not wait for each other
    push a job each.
    """

    name = "examples.send_email"
    queue = "emails"
    max_retries = 5
    retry_delay = 60
    timeout = 120
    retry_on = (MailServerBusy,)

    smtp: ClassVar[SmtpSettings | None] = None
    """None: from the environment, read anew for each run."""
    attachments_folder: ClassVar[Path | None] = None
    """None: MAIL_ATTACHMENTS from the environment; unset too: attachments are refused."""

    def handle(self, data: Email, ctx: JobContext) -> dict[str, object]:
        """Send it; the result says as what it was sent, and what the server answered."""
        settings = self.smtp or SmtpSettings.from_environment()
        message = compose(data, settings.sender, ctx.id)
        self._attach(message, data.attachments)
        envelope = [parse_address(text).addr_spec for text in data.recipients]
        answer = deliver(settings, message, parse_address(settings.sender).addr_spec, list(dict.fromkeys(envelope)))
        return {"message_id": message["Message-ID"], "recipients": len(envelope), "answer": answer}

    def _attach(self, message: EmailMessage, paths: Sequence[str]) -> None:
        folder = self.attachments_folder or folder_from_environment("MAIL_ATTACHMENTS")
        if paths and folder is None:
            raise MailRefused("this worker has no attachments folder: set MAIL_ATTACHMENTS where it starts")
        room = ATTACHMENT_BYTES_MAX
        for path in paths:
            assert folder is not None
            file = inside(folder, path)
            with file.open("rb") as opened:
                content = opened.read(room + 1)  # not one byte more than would be refused anyway
            if len(content) > room:
                raise MailRefused(f"the attachments are larger than {ATTACHMENT_BYTES_MAX:,} bytes together")
            room -= len(content)
            kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            main, _, sub = kind.partition("/")
            message.add_attachment(content, maintype=main, subtype=sub, filename=file.name)


def compose(data: Email, sender: str, job_id: str) -> EmailMessage:
    """The message without its attachments. Blind copies are in the envelope only, never in a header."""
    message = EmailMessage()
    from_address = parse_address(sender)
    message["From"] = from_address
    message["To"] = [parse_address(text) for text in ([data.to] if isinstance(data.to, str) else data.to)]
    if data.cc:
        message["Cc"] = [parse_address(text) for text in data.cc]
    if data.reply_to:
        message["Reply-To"] = parse_address(data.reply_to)
    message["Subject"] = data.subject
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = message_id(job_id, from_address.domain)
    message["Auto-Submitted"] = "auto-generated"  # keeps out-of-office robots from answering, RFC 3834
    message.set_content(data.body)
    if data.html is not None:
        message.add_alternative(data.html, subtype="html")
    return message


def message_id(job_id: str, domain: str) -> str:
    """The same for every run of a job, and no other job's."""
    # push(..., id=) takes any text, and not every text may stand in a Message-ID.
    token = job_id if re.fullmatch(r"[A-Za-z0-9-]{1,100}", job_id) else hashlib.sha256(job_id.encode()).hexdigest()
    return f"<job.{token}@{domain if domain.isascii() else 'localhost'}>"


def parse_address(text: str) -> Address:
    """One address, with or without a display name. Raises ValueError for anything else, line breaks first of all."""
    found = getaddresses([text]) if not _has_controls(text) else []
    name, spec = found[0] if len(found) == 1 else ("", "")
    is_whole = text.strip() in (spec, f"<{spec}>") or text.rstrip().endswith(f"<{spec}>")
    if not is_whole or not re.fullmatch(r"[^@\s<>,;:\"()\[\]\\]{1,64}@[^@\s<>,;:\"()\[\]\\]{1,253}", spec):
        raise ValueError(f"{text!r} is not one e-mail address")
    username, _, domain = spec.partition("@")
    return Address(display_name=name, username=username, domain=domain)  # as addr_spec it would have to be ASCII


def _has_controls(text: str) -> bool:
    return any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in text)
