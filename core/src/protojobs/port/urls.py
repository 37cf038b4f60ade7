"""URLs of stores: shown without passwords, and checked before a driver reads them.

For the command line and for drivers. A password stands in every URL of a server, so no message shows a URL that has not
been through `masked`, and no foreign text that has not been through `scrubbed`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from protojobs.errors import ConfigurationError, one_line

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["ENCODE", "check_url", "driver_entry_points", "masked", "names_file", "scrubbed"]

ENCODE = "In a user or a password write %40 for @, %3A for :, %2F for /, %3F for ?, %23 for # and %25 for %."
SERVERS = frozenset(("postgresql", "mysql", "mariadb", "redis", "rediss", "valkey", "valkeys"))

_GROUP = "protojobs.drivers"
_SECRET = r"[\w.-]*(?:passw|passphrase|pwd|secret|token|api_?key|credential)[\w.-]*"
_OPTIONS = re.compile(rf"(?i)([?&;]{_SECRET}=)[^&]*")
_URLS = re.compile(r"(?i)\b[a-z][a-z0-9+.-]*://\S+")
# In a Redis URL without a user, an @ among the options is part of a value. Of a database's URL, its library takes all
# before an @ for a user and a password, so there it stays masked.
_REDIS_OPTIONS = re.compile(
    r"(?i)(?:rediss?|valkeys?)(?:\+\w+)?://(?:[\w.,-]|:\d+|\[[\da-f:]+\])*(?:/[\w/-]*)?\?\w+=[^@]*@[^?#/:]*"
)
_DSN = re.compile(rf"(?i)\b({_SECRET}\s*=\s*)('(?:[^'\\]|\\.)*'|\"[^\"]*\"|[^\s&,;]+)")


def masked(url: str) -> str:
    """The URL without its passwords, fit for people's eyes.

    All before the last @ may be a user and a password, whatever stands in there that should have been encoded.
    """
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    rest = _OPTIONS.sub(r"\1***", rest)
    if _REDIS_OPTIONS.fullmatch(f"{scheme}{separator}{rest}"):
        return f"{scheme}{separator}{rest}"
    credentials, at, place = rest.rpartition("@")
    user, colon, _ = credentials.partition(":")
    return f"{scheme}{separator}{user}{':***' if colon else ''}{at}{place}"


def scrubbed(text: str) -> str:
    """What a library says, with the passwords masked where they stand in a URL or in a `password=...`.

    A word alone is left, whatever the password is: `role "postgres" does not exist` shall say so.
    """
    return _DSN.sub(r"\1***", _URLS.sub(lambda url: masked(url[0]), text))


def check_url(url: str) -> None:
    """Raise ConfigurationError for a URL that no driver can read, or would read as another than was meant."""
    try:
        url.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(
            f'"{one_line(masked(url))}" holds what is no text in UTF-8.', mend="Write the URL in UTF-8."
        ) from None
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("?")[0].partition("/")
    if authority and (authority + path).count("@") > 1:
        raise ConfigurationError(f'"{one_line(masked(url))}" has an @ too many.', mend=ENCODE)
    if slash and not authority and "@" in path and scheme.partition("+")[0] in SERVERS:
        raise ConfigurationError(
            f'"{one_line(masked(url))}" has a slash too many: it names no host, and an @ in its path.',
            mend="Write two slashes before the user.",
        )


def driver_entry_points() -> list[EntryPoint]:
    """The installed drivers, by scheme."""
    from importlib.metadata import entry_points  # a quarter of our import time, and only needed here

    return sorted(entry_points(group=_GROUP), key=lambda entry: entry.name)


def names_file(scheme: str) -> bool:
    """Whether URLs of this scheme name a file: SQLite's do, and those of a driver whose class says `url_names_file`."""
    if scheme == "sqlite":
        return True
    for entry in driver_entry_points() if scheme not in SERVERS else ():
        if entry.name == scheme:
            try:
                return getattr(entry.load(), "url_names_file", False) is True
            except Exception:  # noqa: BLE001  (somebody else's package; `create_driver` says what is wrong with it)
                return False
    return False
