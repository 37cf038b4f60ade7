"""The settings `PROTOJOBS_ALERTS_*`: where alerts go, and what is an alert. Secrets come only from these variables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal
from urllib.parse import urlsplit

from msgspec import Struct

from protojobs.errors import OptionInvalid, shown
from protojobs.names import check_count, check_seconds, check_text
from protojobs.port.records import COUNTED_MAX

__all__ = ["AlertSettings", "Limits"]

DAY_S = 86_400.0
RECIPIENTS_MAX = 50
_PREFIX = "PROTOJOBS_ALERTS_"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Limits(Struct, frozen=True):
    """One number for all queues, and others for some: `300,reports=3600,bulk=off`. 0 and `off` mean never."""

    usual: float
    special: dict[str, float]

    @classmethod
    def parse(cls, variable: str, parts: Sequence[str], *, maximum: float = math.inf) -> Limits:
        """Raises OptionInvalid."""
        usual, special = 0.0, dict[str, float]()
        for part in parts:
            name, is_special, text = part.rpartition("=")
            try:
                limit = 0.0 if text.strip() == "off" else float(text)
            except ValueError:
                limit = math.nan
            if not 0 <= limit < math.inf:
                raise OptionInvalid(
                    f"{variable}: {shown(part)} is no limit.", mend="Write it like 300,reports=3600,bulk=off."
                )
            if limit > maximum:
                raise OptionInvalid(f"{variable}: {shown(part)} is too high.", mend=f"At most {maximum:,.0f}.")
            if is_special:
                special[name.strip()] = limit
            else:
                usual = limit
        return cls(usual, special)

    def of(self, queue: str) -> float | None:
        """The limit of this queue; None: it has none."""
        return self.special.get(queue, self.usual) or None

    @property
    def highest(self) -> float:
        """Of all."""
        return max(self.usual, *self.special.values(), 0.0)


class AlertSettings(Struct, frozen=True, kw_only=True):
    """Where to send, and when. Durations are seconds. Raises OptionInvalid, which shows no secret."""

    webhook: str = ""
    webhook_token: str = ""
    mail_server: str = ""
    mail_user: str = ""
    mail_password: str = ""
    mail_from: str = ""
    mail_to: tuple[str, ...] = ()
    name: str = ""
    failed: int = 1
    failed_window: float = 300.0
    oldest: tuple[str, ...] = ("300",)
    depth: tuple[str, ...] = ()
    workers: bool = True
    look: float = 15.0
    interval: float = 900.0
    detail: Literal["none", "error"] = "none"

    def __post_init__(self) -> None:
        check_text(f"{_PREFIX}NAME", self.name)
        check_count(f"{_PREFIX}FAILED", self.failed, maximum=1_000)
        for variable, value, least in (
            ("FAILED_WINDOW", self.failed_window, 1.0),
            ("LOOK", self.look, 1.0),
            ("INTERVAL", self.interval, 1.0),
        ):
            if check_seconds(_PREFIX + variable, value, maximum=DAY_S) < least:
                raise OptionInvalid(f"{_PREFIX}{variable} is {value:g}.", mend=f"At least {least:g} second.")
        _ = self.oldest_limits, self.depth_limits
        if self.webhook:
            _check_webhook(self.webhook)
        _check_token(self.webhook_token.strip())
        if self.mail_server:
            _check_mail(self)

    def __repr__(self) -> str:
        """Without anything that may be secret."""
        ways = [way for way, is_set in (("webhook", self.webhook), ("mail", self.mail_server)) if is_set]
        return f"<AlertSettings by {' and '.join(ways) or 'no way'}>"

    @property
    def oldest_limits(self) -> Limits:
        """How long the oldest due job of a queue may wait."""
        return Limits.parse(f"{_PREFIX}OLDEST", self.oldest)

    @property
    def depth_limits(self) -> Limits:
        """How many jobs of a queue may be due."""
        return Limits.parse(f"{_PREFIX}DEPTH", self.depth, maximum=COUNTED_MAX - 1)


def is_loopback(host: str | None) -> bool:
    """Whether what is sent there stays on this machine."""
    return host in _LOOPBACK


def _check_webhook(url: str) -> None:
    # The URL of a chat's webhook is a secret in itself: nothing of it is shown.
    variable = f"{_PREFIX}WEBHOOK"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if not host or port == 0 or parts.scheme not in ("http", "https") or any(c.isspace() or c < " " for c in url):
        raise OptionInvalid(f"{variable} is not a URL.", mend="Write it like https://chat.example.com/hooks/jobs.")
    if parts.scheme == "http" and not is_loopback(host):
        raise OptionInvalid(f"{variable} would send in the clear.", mend="Use https; http goes to this machine only.")
    if parts.username or parts.password:
        raise OptionInvalid(f"{variable} has a password in it.", mend=f"Put a token into {variable}_TOKEN instead.")


def _check_token(token: str) -> None:
    if not token.isascii() or not token.isprintable():
        raise OptionInvalid(
            f"{_PREFIX}WEBHOOK_TOKEN holds what no header can carry.",
            mend="A token is one line of printable ASCII characters.",
        )


def _check_mail(settings: AlertSettings) -> None:
    variable = f"{_PREFIX}MAIL_SERVER"
    try:
        parts = urlsplit(settings.mail_server)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if not host or parts.scheme not in ("smtp", "smtps") or parts.path not in ("", "/"):
        raise OptionInvalid(
            f"{variable} is no mail server.",
            mend="Write it like smtp://mail.example.com:587, or smtps:// for TLS at once.",
        )
    if parts.username or parts.password:
        raise OptionInvalid(f"{variable} has a password in it.", mend=f"Use {_PREFIX}MAIL_USER and _MAIL_PASSWORD.")
    for name, addresses in (("MAIL_FROM", (settings.mail_from,)), ("MAIL_TO", settings.mail_to)):
        if not addresses or not all(_is_address(one) for one in addresses) or len(addresses) > RECIPIENTS_MAX:
            raise OptionInvalid(
                f"{_PREFIX}{name} is no mail address.",
                mend=f"Write it like ops@example.com; up to {RECIPIENTS_MAX} in MAIL_TO, separated by commas.",
            )
    if bool(settings.mail_user) != bool(settings.mail_password):
        raise OptionInvalid(f"{_PREFIX}MAIL_USER and {_PREFIX}MAIL_PASSWORD belong together.", mend="Set both.")


def _is_address(text: str) -> bool:
    local, at, host = text.rpartition("@")
    return bool(at and local and host) and text.isprintable() and not set(text) & set(' <>,;"')
