"""Logging in, without I/O (RFC 4954): what is said, and in answer to what.

PLAIN (RFC 4616), and LOGIN for hosts that know nothing else.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Secret:
    """A text that shows itself to nobody but who asks for it by name."""

    revealed: str

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__


class Login:
    """One login of a client."""

    def __init__(self, username: str, password: Secret) -> None:
        self._username = username
        self._password = password
        self._answers: list[str] = []

    def begin(self, offered: Sequence[str]) -> bytes | None:
        """The AUTH command for the best of the peer's mechanisms; None: none of them is known."""
        if "PLAIN" in offered:
            self._answers = []
            said = f"\0{self._username}\0{self._password.revealed}"
            return b"AUTH PLAIN " + _encoded(said) + b"\r\n"
        if "LOGIN" in offered:
            self._answers = [self._password.revealed, self._username]
            return b"AUTH LOGIN\r\n"
        return None

    def go_on(self, challenge: str) -> bytes:
        """The answer to a challenge, which for these mechanisms only says that it is our turn."""
        if not self._answers:
            return b"*\r\n"  # RFC 4954 §4: nothing more to say
        return _encoded(self._answers.pop()) + b"\r\n"


def _encoded(text: str) -> bytes:
    return base64.b64encode(text.encode())
