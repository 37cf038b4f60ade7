"""Sends alerts by mail: over TLS, or to a server on this machine."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Generator
from contextlib import contextmanager, suppress
from email.message import EmailMessage
from email.utils import format_datetime
from urllib.parse import urlsplit

from protojobs_alerts.messages import Message
from protojobs_alerts.sending import SendFailed
from protojobs_alerts.settings import AlertSettings, is_loopback

__all__ = ["Mail"]

TIMEOUT_S = 15.0  # for the connection, and for each answer
_PERMANENT = 500


class Mail:
    """`smtps://` is TLS at once; `smtp://` begins with STARTTLS and refuses to go on without, but for this machine."""

    def __init__(self, settings: AlertSettings) -> None:
        parts = urlsplit(settings.mail_server)
        self._host = parts.hostname or ""
        self._is_tls = parts.scheme == "smtps"
        self._port = parts.port or (465 if self._is_tls else 587)
        self._settings = settings

    @property
    def name(self) -> str:
        """The server's name."""
        return f"mail by {self._host}"

    def send(self, message: Message) -> None:
        """Raises SendFailed. A server that takes it for some recipients only has taken it."""
        try:
            with self._connected() as server:
                if self._settings.mail_user:
                    server.login(self._settings.mail_user, self._settings.mail_password)
                server.send_message(self._letter(message))
        except smtplib.SMTPResponseException as refusal:  # its text may echo what was sent: only the code is shown
            raise SendFailed(f"it answered {refusal.smtp_code}", may_retry=refusal.smtp_code < _PERMANENT) from None
        except smtplib.SMTPRecipientsRefused as refusal:
            codes = sorted({code for code, _ in refusal.recipients.values()})
            may_retry = any(code < _PERMANENT for code in codes)
            raise SendFailed(f"it refused every recipient ({codes[0]})", may_retry=may_retry) from None
        except smtplib.SMTPNotSupportedError:
            raise SendFailed("it offers no STARTTLS, or no login", may_retry=False) from None
        except (smtplib.SMTPException, OSError) as error:
            raise SendFailed(f"it cannot be reached ({type(error).__name__})", may_retry=True) from None
        except ValueError as error:  # what no mail can carry, such as a password in Cyrillic; its text may show it
            raise SendFailed(f"it cannot be sent ({type(error).__name__})", may_retry=False) from None

    @contextmanager
    def _connected(self) -> Generator[smtplib.SMTP]:
        if self._is_tls:
            context = ssl.create_default_context()
            server: smtplib.SMTP = smtplib.SMTP_SSL(self._host, self._port, timeout=TIMEOUT_S, context=context)
        else:
            server = smtplib.SMTP(self._host, self._port, timeout=TIMEOUT_S)
        try:
            if not self._is_tls and not is_loopback(self._host):
                server.starttls(context=ssl.create_default_context())
            yield server
            with suppress(smtplib.SMTPException, OSError):  # it has taken the message
                server.quit()
        finally:
            server.close()

    def _letter(self, message: Message) -> EmailMessage:
        letter = EmailMessage()
        letter["Subject"] = message.subject
        letter["From"] = self._settings.mail_from
        letter["To"] = ", ".join(self._settings.mail_to)
        letter["Date"] = format_datetime(message.at)
        letter["Message-ID"] = f"<{message.id}@protojobs>"  # the same for every try
        letter["Auto-Submitted"] = "auto-generated"
        letter.set_content(f"{message.text}\n\nTold by protojobs alerts for {message.name}.\n")
        return letter
