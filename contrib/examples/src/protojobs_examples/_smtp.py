"""Hands one message to an SMTP server, which accepts it for all recipients or for none."""

from __future__ import annotations

import os
import smtplib
import ssl
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, suppress
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from typing import TYPE_CHECKING, Literal, NoReturn

import msgspec

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["MailRefused", "MailServerBusy", "SmtpSettings", "deliver"]

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
Security = Literal["none", "starttls", "tls"]


class MailRefused(Exception):
    """The message will never be accepted as it is (5xx, or a server that cannot do what it needs). Not retried."""


class MailServerBusy(Exception):
    """The server could not be reached, or asked to come again later (4xx). Retried."""


class SmtpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where mail leaves, and as whom. Belongs to the worker; `str()` and `repr()` keep the password to themselves."""

    host: str = "localhost"
    port: int = 25
    security: Security = "none"
    user: str = ""
    password: str = ""
    sender: str = "nobody@localhost"
    timeout_s: float = 15.0
    """For connecting and for each answer, so a run lasts a small multiple of it."""

    def __post_init__(self) -> None:
        if self.user and self.security == "none" and self.host not in _LOOPBACK:
            raise ValueError(
                f"the password for {self.host} would travel unencrypted: set MAIL_SECURITY to starttls or tls"
            )

    def __repr__(self) -> str:
        return f"SmtpSettings({self.security} {self.host}:{self.port}, user={self.user!r}, sender={self.sender!r})"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> SmtpSettings:
        """Settings from MAIL_HOST, MAIL_PORT, MAIL_SECURITY (none, starttls, tls), MAIL_USER, MAIL_PASSWORD, MAIL_FROM.

        Without MAIL_SECURITY a server on this machine is spoken to in the clear, any other by STARTTLS.
        """
        host = environ.get("MAIL_HOST") or "localhost"
        security = environ.get("MAIL_SECURITY") or ("none" if host in _LOOPBACK else "starttls")
        usual_port = {"none": "25", "starttls": "587", "tls": "465"}.get(security, "")
        values = {
            "host": host,
            "port": environ.get("MAIL_PORT") or usual_port,
            "security": security,
            "user": environ.get("MAIL_USER", ""),
            "password": environ.get("MAIL_PASSWORD", ""),
            "sender": environ.get("MAIL_FROM") or f"nobody@{host}",
        }
        return msgspec.convert(values, type=cls, strict=False)


def deliver(settings: SmtpSettings, message: EmailMessage, sender: str, recipients: Sequence[str]) -> str:
    """Hand the message over and return the server's answer. Raises MailServerBusy or MailRefused.

    `smtplib.send_message` is content when *one* recipient was accepted, and a retry for the others would reach that one
    twice. So this asks for all of them first, and sends the text only when all were accepted.
    """
    is_international = not all(address.isascii() for address in (sender, *recipients))
    options = ["SMTPUTF8", "BODY=8BITMIME"] if is_international else []
    content = message.as_bytes(policy=SMTPUTF8 if is_international else SMTP)
    with _errors_translated(), _connected(settings) as smtp:
        _expect(250, smtp.mail(sender, options), f"the sender {sender}")
        refused = {who: answer for who in recipients if (answer := smtp.rcpt(who))[0] not in (250, 251)}
        if refused:
            is_final = any(code >= 500 for code, _ in refused.values())
            _refuse(is_final, "; ".join(f"{who}: {_text(answer)}" for who, answer in refused.items()))
        answer = smtp.data(content)
        _expect(250, answer, "the message")
    return _text(answer)


@contextmanager
def _connected(settings: SmtpSettings) -> Generator[smtplib.SMTP]:
    """A greeted, encrypted and logged-in connection, closed at the end whatever happens."""
    where = (settings.host, settings.port)
    if settings.security == "tls":
        smtp: smtplib.SMTP = smtplib.SMTP_SSL(*where, timeout=settings.timeout_s, context=ssl.create_default_context())
    else:
        smtp = smtplib.SMTP(*where, timeout=settings.timeout_s)
    try:
        if settings.security == "starttls":
            smtp.starttls(context=ssl.create_default_context())
        smtp.ehlo_or_helo_if_needed()
        if settings.user:
            smtp.login(settings.user, settings.password)
        yield smtp
        with suppress(OSError):  # the message is accepted: a lost goodbye must not turn that into a retry
            smtp.quit()
    finally:
        smtp.close()


@contextmanager
def _errors_translated() -> Generator[None]:
    try:
        yield
    except smtplib.SMTPResponseException as error:
        _refuse(error.smtp_code >= 500, _text((error.smtp_code, error.smtp_error)), error)
    except smtplib.SMTPServerDisconnected as error:
        _refuse(False, f"the connection was lost: {error}", error)
    except smtplib.SMTPException as error:  # an extension that the server lacks, an answer that is not SMTP
        _refuse(True, str(error), error)
    except (
        OSError
    ) as error:  # cannot connect, timed out, no such host; SMTPException is an OSError too, so this is last
        _refuse(False, f"{type(error).__name__}: {error}", error)


def _expect(code: int, answer: tuple[int, bytes], what: str) -> None:
    if answer[0] != code:
        _refuse(answer[0] >= 500, f"{what} was not accepted: {_text(answer)}")


def _refuse(is_final: bool, why: str, cause: BaseException | None = None) -> NoReturn:
    raise (MailRefused if is_final else MailServerBusy)(why) from cause


def _text(answer: tuple[int, bytes | str]) -> str:
    text = answer[1]
    return f"{answer[0]} {text.decode(errors='replace') if isinstance(text, bytes) else text}"
