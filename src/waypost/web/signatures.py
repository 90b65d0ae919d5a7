"""Signatures of senders that prove themselves by a secret instead of showing a token."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

from waypost.delivery.webhook import signature
from waypost.smtp.auth import Secret
from waypost.web.message import Response

# What was signed longer ago, or will have been, is no news.
WINDOW_S = 300.0
# How many signatures are remembered, to tell a copy.
REMEMBERED = 10_000


def is_signed_by_waypost(secret: Secret, headers: Mapping[str, str], body: bytes) -> bool:
    """As [webhook.NAME] of a hub signs, within the window."""
    timestamp = headers.get("x-waypost-timestamp", "")
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) < 15):
        return False
    if abs(time.time() - int(timestamp)) > WINDOW_S:
        return False
    shown = headers.get("x-waypost-signature", "").encode("latin-1")
    return hmac.compare_digest(shown, signature(secret, timestamp, body).encode())


def is_signed_by_github(secret: Secret, headers: Mapping[str, str], body: bytes) -> bool:
    """As GitHub, Gitea and others do: HMAC-SHA256 of the body, at any time."""
    right = "sha256=" + hmac.new(secret.revealed.encode(), body, hashlib.sha256).hexdigest()
    shown = headers.get("x-hub-signature-256", "").encode("latin-1")
    return hmac.compare_digest(shown, right.encode())


class Seen:
    """Signed requests that were served: a copy gets the same response, and does nothing."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._responses: OrderedDict[str, tuple[float, Response]] = OrderedDict()

    def response_to(self, shown: str) -> Response | None:
        """What was answered to this signature; None: it is new, or no longer good anyway."""
        # One signed ahead of our clock is good for twice the window.
        while self._responses:
            oldest, (at, _) = next(iter(self._responses.items()))
            if self._clock() - at <= 2 * WINDOW_S:
                break
            del self._responses[oldest]
        found = self._responses.get(shown)
        return None if found is None else found[1]

    def note(self, shown: str, response: Response) -> None:
        """This signature was served, with this response."""
        self._responses[shown] = (self._clock(), response)
        if len(self._responses) > REMEMBERED:
            self._responses.popitem(last=False)
