"""Who is looking: what an `auth` of the dashboard may be, and three ready-made ones."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Awaitable, Callable, Collection, Sequence
from ipaddress import ip_address, ip_network

from starlette.requests import Request

from protojobs.errors import ConfigurationError, shown
from protojobs.inspector import Role, Viewer

__all__ = ["Auth", "BasicAuth", "TokenAuth", "TrustedHeader", "client_address", "is_loopback"]

# None: nobody that we know, which is answered with 401. May be a coroutine; a plain function runs on a thread.
Auth = Callable[[Request], Viewer | None | Awaitable[Viewer | None]]

SECRET_CHARS_MIN = 8


class BasicAuth:
    """Names and passwords, asked for by the browser itself.

    `BasicAuth({"ann": "..."}, operators={"ann"})`: without `operators` all may act. Use it over HTTPS only.
    """

    challenge = 'Basic realm="protojobs", charset="UTF-8"'

    def __init__(self, passwords: dict[str, str], *, operators: Collection[str] | None = None) -> None:
        for name, password in passwords.items():
            if not name or ":" in name:
                raise ConfigurationError(f"{shown(name)} cannot be a user's name.", mend="Names hold no colon.")
            _check_secret(f"the password of {name}", password)
        self._passwords = dict(passwords)
        self._operators = set(passwords if operators is None else operators)

    def __call__(self, request: Request) -> Viewer | None:
        """The viewer of that name, if the password is right."""
        name, password = _basic(request)
        # Compared also for a name that nobody has, so that time does not tell which names there are.
        is_right = _same(self._passwords.get(name, "\0"), password)
        if not is_right or name not in self._passwords:
            return None
        return Viewer(name, Role.OPERATE if name in self._operators else Role.READ, client_address(request))


class TokenAuth:
    """Tokens, each with a name: `Authorization: Bearer TOKEN`, or in a browser as the password, whatever the user.

    `TokenAuth({"grafana": "..."}, operators=())`: without `operators` all may act.
    """

    challenge = 'Basic realm="protojobs: a token as the password", charset="UTF-8"'

    def __init__(self, tokens: dict[str, str], *, operators: Collection[str] | None = None) -> None:
        for name, token in tokens.items():
            _check_secret(f"the token of {name}", token)
        self._tokens = dict(tokens)
        self._operators = set(tokens if operators is None else operators)

    def __call__(self, request: Request) -> Viewer | None:
        """The viewer whose token it is."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        token = given.strip() if scheme.lower() == "bearer" else _basic(request)[1]
        names = [name for name, known in self._tokens.items() if _same(known, token)]
        if not names:
            return None
        return Viewer(names[0], Role.OPERATE if names[0] in self._operators else Role.READ, client_address(request))


class TrustedHeader:
    """The user's name in a header that a proxy sets: `TrustedHeader("X-Forwarded-User", proxies=["10.0.0.0/8"])`.

    The header counts only where the connection comes from one of `proxies`; those must set it themselves, or remove
    one that a client has sent. A server that takes the client's address from other headers (uvicorn with
    `--proxy-headers`, which is its default) hides the proxy's: turn that off.
    """

    challenge = ""

    def __init__(
        self,
        header: str,
        *,
        proxies: Sequence[str] = ("127.0.0.0/8", "::1"),
        operators: Collection[str] | None = None,
    ) -> None:
        try:
            self._proxies = [ip_network(proxy) for proxy in proxies]
        except ValueError as error:
            raise ConfigurationError(f"A proxy is no network: {error}.", mend='Write "10.0.0.0/8".') from None
        self._header = header
        self._operators = None if operators is None else set(operators)

    def __call__(self, request: Request) -> Viewer | None:
        """The viewer that the proxy names."""
        name, proxy = request.headers.get(self._header, ""), client_address(request)
        if not name or len(request.headers.getlist(self._header)) != 1 or not self._is_trusted(proxy):
            return None
        may_act = self._operators is None or name in self._operators
        return Viewer(name[:100], Role.OPERATE if may_act else Role.READ, proxy)

    def _is_trusted(self, address: str) -> bool:
        try:
            return any(ip_address(address) in proxy for proxy in self._proxies)
        except ValueError:  # a Unix socket, or a name
            return False


def client_address(request: Request) -> str:
    """The address at the other end of the connection; empty where the server tells none."""
    return request.client.host if request.client is not None else ""


def is_loopback(host: str) -> bool:
    """Whether this is an address of this very machine."""
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return host.lower() == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _basic(request: Request) -> tuple[str, str]:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        name, _, password = base64.b64decode(given.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return name, password


def _same(known: str, given: str) -> bool:
    return hmac.compare_digest(known.encode(), given.encode())


def _check_secret(what: str, secret: str) -> None:
    if len(secret) < SECRET_CHARS_MIN:
        raise ConfigurationError(
            f"{what} has {len(secret)} characters.", mend=f"Take at least {SECRET_CHARS_MIN}, by chance."
        )
