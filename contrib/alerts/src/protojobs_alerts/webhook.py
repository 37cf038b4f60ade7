"""Sends alerts to a webhook: one POST of JSON, over https, or to this machine."""

from __future__ import annotations

import http.client
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from protojobs_alerts.messages import Message
from protojobs_alerts.sending import SendFailed

__all__ = ["Webhook"]

TIMEOUT_S = 10.0  # for the connection, and for each answer
_BUSY = (408, 425, 429)


class _NoRedirect(HTTPRedirectHandler):
    """A redirect could lead away from https, and would take the token along."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> None:
        """Follow none."""


class Webhook:
    """Any 2xx is an acceptance. 5xx, 408, 425 and 429 are tried again, other answers are not. HTTPS_PROXY is obeyed."""

    def __init__(self, url: str, token: str = "") -> None:
        self._url = url
        self._token = token.strip()  # of a file it often has the newline, which no header can carry
        self._opener = build_opener(_NoRedirect)

    @property
    def name(self) -> str:
        """Without the path, which in many chats is the secret."""
        return f"webhook to {urlsplit(self._url).hostname}"

    def send(self, message: Message) -> None:
        """Raises SendFailed."""
        headers = {"Content-Type": "application/json", "User-Agent": "protojobs-alerts", "Idempotency-Key": message.id}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        request = Request(self._url, message.as_json(), headers, method="POST")
        try:
            self._opener.open(request, timeout=TIMEOUT_S).close()
        except HTTPError as response:
            response.close()
            may_retry = response.code >= 500 or response.code in _BUSY
            raise SendFailed(f"it answered {response.code}", may_retry=may_retry) from None
        except (URLError, OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, URLError) else error
            raise SendFailed(f"it cannot be reached ({type(reason).__name__})", may_retry=True) from None
        except ValueError as error:  # what no request can carry; its text would show the URL or the token
            raise SendFailed(f"it cannot be asked ({type(error).__name__})", may_retry=False) from None
