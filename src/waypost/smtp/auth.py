"""Logging in, without I/O (RFC 4954): what is said, and in answer to what.

PLAIN (RFC 4616), and LOGIN for hosts that know nothing else.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

_GIVE_UP = b"*\r\n"  # RFC 4954 §4


class Secret:
    """A text that shows itself to nobody but who asks for it by name.

    No dataclass: whoever walks through those, to show settings for example, must not find it.
    """

    __slots__ = ("revealed",)

    def __init__(self, revealed: str) -> None:
        self.revealed = revealed

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.revealed == other.revealed

    def __hash__(self) -> int:
        return hash(self.revealed)

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__


class Login:
    """One login of a client."""

    def __init__(self, username: str, password: Secret) -> None:
        self._username = username
        self._password = password
        self._answers: list[bytes] = []

    def begin(self, offered: Sequence[str]) -> bytes | None:
        """The AUTH command for the best of the peer's mechanisms; None: none of them is known."""
        if "PLAIN" in offered:
            self._answers = [_GIVE_UP]
            return f"AUTH PLAIN {self._plain()}\r\n".encode()
        if "LOGIN" in offered:
            texts = (self._password.revealed, self._username)
            self._answers = [_GIVE_UP, *(f"{_encoded(text)}\r\n".encode() for text in texts)]
            return b"AUTH LOGIN\r\n"
        return None

    def go_on(self) -> bytes | None:
        """The answer to a challenge, which for these mechanisms only says that it is our turn.

        None: the peer has heard that there is nothing more to say.
        """
        return self._answers.pop() if self._answers else None

    def masked(self, text: str) -> str:
        """What a peer said, without the password where it repeats what it was told."""
        password = self._password.revealed
        as_heard = password.encode("ascii", "replace").decode()
        for secret in (self._plain(), _encoded(password), password, as_heard):
            text = text.replace(secret, "***")
        return text

    def _plain(self) -> str:
        return _encoded(f"\0{self._username}\0{self._password.revealed}")


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
