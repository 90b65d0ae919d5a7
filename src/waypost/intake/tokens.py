"""Tokens that clients log in with, shown to the server that issued them (RFC 7662)."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote_plus, urlencode

from waypost.errors import TemporaryError
from waypost.http.client import HttpClient
from waypost.smtp.auth import Secret

MAX_ANSWER_BYTES = 65_536
ANSWER_S = 10.0


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """The [tokens] table."""

    introspection_url: str
    client_id: str
    client_secret: Secret
    ca: Path | None = None  # who may vouch for the server; None: whom this system trusts


class Introspection:
    """A verifier that asks the issuer about each token."""

    def __init__(self, http: HttpClient, settings: TokenSettings) -> None:
        self._http = http
        self._settings = settings

    async def verify(self, username: str, token: Secret) -> str | None:
        """See TokenVerifier: `username` from the issuer, else its `sub`, names the account.

        A client that gives a name of its own must give that one.
        """
        settings = self._settings
        # RFC 6749 §2.3.1: both are form-encoded before they are put together.
        pair = f"{quote_plus(settings.client_id)}:{quote_plus(settings.client_secret.revealed)}"
        response = await self._http.fetch(
            "POST",
            settings.introspection_url,
            headers={
                "Authorization": f"Basic {b64encode(pair.encode()).decode()}",
                "Content-Type": "application/x-www-form-urlencoded",
                "Accept": "application/json",
            },
            body=urlencode({"token": token.revealed}).encode(),
            ca=settings.ca,
            limit_bytes=MAX_ANSWER_BYTES,
            timeout_s=ANSWER_S,
        )
        if response.status != 200:
            raise TemporaryError(f"the token server answered with status {response.status}")
        try:
            answer = json.loads(response.body)
            is_active = answer["active"] is True
        except (ValueError, KeyError, TypeError):
            raise TemporaryError("the token server's answer is none of RFC 7662") from None
        owner = answer.get("username") or answer.get("sub")
        if not is_active or not isinstance(owner, str):
            return None
        return owner if username in ("", owner) else None
