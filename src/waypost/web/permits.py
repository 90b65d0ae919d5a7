"""Who may: by network, and by a token that is compared without telling how much of it is right.

Tokens are taken from fields of a request only, never from its path, which ends up in logs, and
never from cookies, which browsers send along with what other sites make them do (CSRF).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from typing import NoReturn

from waypost.intake.guesses import FORGIVEN_AFTER_S, Guesses, delay_of
from waypost.intake.visitors import Visitors
from waypost.mail import reply as replies
from waypost.net.networks import Networks, client_key
from waypost.observe import Log
from waypost.smtp.auth import Secret
from waypost.web.message import Request, refused
from waypost.web.server import WEB

# A client with this many wrong tokens hears at once that it is to stop.
MAX_GUESSES = 10


class Permits:
    """Judges what clients show."""

    def __init__(self, trusted: Networks, visitors: Visitors, log: Log) -> None:
        """`trusted` may be replaced while running (reload)."""
        self.trusted = trusted
        self._visitors = visitors
        self._log = log
        self._guesses = Guesses()

    def check_network(self, request: Request, networks: Networks | None) -> None:
        """Raises Refused for a client outside; `networks` None: those that are trusted."""
        if request.client_ip not in (self.trusted if networks is None else networks):
            self._visitors.turned_away(request.client_ip, WEB, replies.NOT_ALLOWED_TO_CONNECT)
            raise refused(403, f"{request.client_ip} is in none of the networks that may ask this")

    async def wrong(self, request: Request, what: str) -> NoReturn:
        """A token or signature was wrong; the answer waits, the longer the oftener that was so.

        A right one passes however many wrong ones came from the same address, which may be a
        proxy's: nobody guesses it (settings.MIN_SECRET).
        """
        client, key = request.client_ip, client_key(request.client_ip)
        if self._guesses.count(key) >= MAX_GUESSES:
            self._visitors.turned_away(client, WEB, replies.TOO_MANY_LOGINS)
            wait_s = f"{FORGIVEN_AFTER_S:.0f}"
            raise refused(429, "too many wrong tokens from your address", Retry_After=wait_s)
        delay_s = delay_of(self._guesses.add(key))
        self._log.event(
            "token-refused",
            client=client,
            listener=WEB,
            path=request.path,
            why=f"wrong {what}",
            delay_s=f"{delay_s:.0f}",
        )
        await asyncio.sleep(delay_s)
        raise refused(401, f"the {what} is wrong", WWW_Authenticate="Bearer")


def shown_token(request: Request) -> bytes:
    """The token of a request. Raises Refused when there is none."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    shown = credentials.strip() if scheme.lower() == "bearer" else ""
    shown = shown or request.headers.get("x-waypost-token", "")
    if not shown:
        text = "show a token, as in Authorization: Bearer TOKEN"
        raise refused(401, text, WWW_Authenticate="Bearer")
    return shown.encode("latin-1")


def is_same(shown: bytes, secret: Secret) -> bool:
    """Whether both are one; how long this takes says nothing of either."""
    mine = hashlib.sha256(secret.revealed.encode()).digest()
    return hmac.compare_digest(hashlib.sha256(shown).digest(), mine)
