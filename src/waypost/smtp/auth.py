"""Logging in, without I/O (RFC 4954): what is said, and in answer to what.

PLAIN (RFC 4616), LOGIN for hosts that know nothing else, and with an access token in place of a
password OAUTHBEARER (RFC 7628) and XOAUTH2, its elder brother at Google and Microsoft.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from enum import StrEnum

_GIVE_UP = b"*\r\n"  # RFC 4954 §4
# Longer commands go without an initial response (RFC 4954 §4, RFC 5321 §4.5.3.1.4): tokens are
# long, and hosts take long lines as an answer (12288 octets) only.
_MAX_COMMAND = 512
_MAX_TROUBLE = 300


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


class Mechanism(StrEnum):
    """A way to log in that the operator may ask for, as the peer offers it."""

    PLAIN = "PLAIN"
    LOGIN = "LOGIN"
    XOAUTH2 = "XOAUTH2"
    OAUTHBEARER = "OAUTHBEARER"

    @property
    def is_bearer(self) -> bool:
        """True when the secret is an access token."""
        return self in (Mechanism.XOAUTH2, Mechanism.OAUTHBEARER)


class Login:
    """One login of a client."""

    def __init__(self, username: str, password: Secret, mechanism: Mechanism | None = None) -> None:
        """`password`: an access token where the mechanism asks for one. `mechanism` None: PLAIN
        or LOGIN, whichever the peer offers.
        """
        self._username = username
        self.password = password
        self.mechanism = mechanism
        self._answers: list[bytes] = []
        self._is_asked_why = False  # the next challenge says what is wrong with the token
        self.trouble = ""  # what it said

    def begin(self, offered: Sequence[str]) -> bytes | None:
        """The AUTH command for the best of the peer's mechanisms; None: none of them is known."""
        wanted = (Mechanism.PLAIN, Mechanism.LOGIN) if self.mechanism is None else (self.mechanism,)
        mechanism = next((entry for entry in wanted if entry.value in offered), None)
        if mechanism is None:
            return None
        if mechanism is Mechanism.PLAIN:
            self._answers = [_GIVE_UP]
            return f"AUTH PLAIN {self._plain()}\r\n".encode()
        if mechanism is Mechanism.LOGIN:
            texts = (self.password.revealed, self._username)
            self._answers = [_GIVE_UP, *(f"{_encoded(text)}\r\n".encode() for text in texts)]
            return b"AUTH LOGIN\r\n"
        # To what is wrong with a token, XOAUTH2 answers nothing, RFC 7628 §3.2.3 one control.
        end = b"\r\n" if mechanism is Mechanism.XOAUTH2 else b"AQ==\r\n"
        response = self._bearer(mechanism)
        command = f"AUTH {mechanism} {response}\r\n".encode()
        self._answers = [_GIVE_UP, end]
        if len(command) <= _MAX_COMMAND:
            self._is_asked_why = True
            return command
        self._answers.append(f"{response}\r\n".encode())
        return f"AUTH {mechanism}\r\n".encode()

    def go_on(self, challenge: str) -> bytes | None:
        """The answer to a challenge, which says that it is our turn, or why a token is no good.

        None: the peer has heard that there is nothing more to say.
        """
        if self._is_asked_why and not self.trouble:
            self.trouble = self.masked(_decoded(challenge))[:_MAX_TROUBLE]
        if self.mechanism is not None and self.mechanism.is_bearer:
            self._is_asked_why = True
        return self._answers.pop() if self._answers else None

    def masked(self, text: str) -> str:
        """What a peer said, without the password where it repeats what it was told."""
        password = self.password.revealed
        as_heard = password.encode("ascii", "replace").decode()
        said = [self._plain(), _encoded(password), password, as_heard]
        if self.mechanism is not None and self.mechanism.is_bearer:
            said.insert(0, self._bearer(self.mechanism))
        for secret in said:
            text = text.replace(secret, "***")
        return text

    def _plain(self) -> str:
        return _encoded(f"\0{self._username}\0{self.password.revealed}")

    def _bearer(self, mechanism: Mechanism) -> str:
        token = f"auth=Bearer {self.password.revealed}\x01\x01"
        if mechanism is Mechanism.XOAUTH2:
            return _encoded(f"user={self._username}\x01{token}")
        name = self._username.replace("=", "=3D").replace(",", "=2C")  # RFC 5801 §4
        return _encoded(f"n,a={name},\x01{token}")


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _decoded(challenge: str) -> str:
    """What a challenge says, for people: one line."""
    try:
        text = base64.b64decode(challenge, validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        text = challenge
    plain = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(plain.split())
