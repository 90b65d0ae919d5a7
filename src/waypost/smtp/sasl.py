"""The server's side of a login, without I/O (RFC 4954, RFC 4422).

An exchange hears what the client says and gives a challenge to put to it, or in the end a claim:
who the client says it is, and what it shows for it. Whether a claim is good is the caller's matter.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import NamedTuple, Protocol

from waypost.mail import reply as replies
from waypost.mail.reply import Reply
from waypost.smtp.auth import Secret

# RFC 4954 §4: a line of an exchange has at most this many octets, its end included.
MAX_LOGIN_LINE = 12_288
MAX_NAME = 255  # octets of a user name, and of a password; RFC 4616 §2 leaves it to us


class PasswordClaim(NamedTuple):
    """PLAIN and LOGIN."""

    username: str
    password: Secret


class TokenClaim(NamedTuple):
    """OAUTHBEARER and XOAUTH2."""

    username: str  # empty: the token alone says who it is
    token: Secret


class ProofClaim(NamedTuple):
    """SCRAM: the exchange itself has shown whether the client knows the password.

    The client learns which only from the answer: who may not guess any more learns nothing.
    """

    username: str
    is_good: bool
    signature: bytes = b""  # for the client, once it is in: we know the password, too


Claim = PasswordClaim | TokenClaim | ProofClaim


class ScramKeys(NamedTuple):
    """What SCRAM-SHA-256 needs to know of a password (RFC 5802 §3)."""

    salt: bytes
    stored_key: bytes
    server_key: bytes
    iterations: int


# The keys of a user name; for one that nobody has, some that look no different.
KeysOf = Callable[[str], ScramKeys]


class Malformed(Exception):
    """What the client says is not of its mechanism."""


class Exchange(Protocol):
    """One login, step by step."""

    def respond(self, response: bytes | None) -> bytes | Claim:
        """The next challenge, or the claim at the end. Raises Malformed.

        `response` None: the client has said nothing yet.
        """
        ...


class Plain:
    """RFC 4616."""

    def respond(self, response: bytes | None) -> bytes | Claim:
        if response is None:
            return b""
        parts = response.split(b"\0")
        if len(parts) != 3:
            raise Malformed
        asked_for, username, password = (_text(part) for part in parts)
        # RFC 4616 §2: to act for somebody else is a right that no account here has.
        if asked_for not in ("", username):
            raise Malformed
        return _password_claim(username, password)


class LoginByPrompts:
    """LOGIN, which no RFC describes; printers end the session at any other prompt than these."""

    def __init__(self) -> None:
        self._username: str | None = None  # None: not asked for yet

    def respond(self, response: bytes | None) -> bytes | Claim:
        if response is None:
            return b"Username:"
        if self._username is None:
            self._username = _text(response)
            return b"Password:"
        return _password_claim(self._username, _text(response))


class Bearer:
    """OAUTHBEARER (RFC 7628 §3.1), and XOAUTH2, which came before it."""

    def respond(self, response: bytes | None) -> bytes | Claim:
        if response is None:
            return b""
        fields = response.split(b"\x01")
        username = b""
        token: bytes | None = None
        for field in fields:
            if field.startswith(b"user="):  # XOAUTH2
                username = field[5:]
            elif field[:5].lower() == b"auth=" and field[5:12].lower() == b"bearer ":
                token = field[12:].strip()
        header = fields[0].split(b",")
        if header[0] in (b"n", b"y") and len(header) == 3 and header[1].startswith(b"a="):
            username = header[1][2:].replace(b"=2C", b",").replace(b"=3D", b"=")
        if not token:
            raise Malformed
        return TokenClaim(_name(_text(username)) if username else "", Secret(_text(token)))


class Scram:
    """SCRAM-SHA-256 (RFC 5802, RFC 7677), without channel binding."""

    def __init__(self, keys_of: KeysOf) -> None:
        # Logins by SCRAM are few, and the library takes a while to load.
        from scramp import ScramMechanism

        self._username = ""
        self._keys_of = keys_of
        self._server = ScramMechanism("SCRAM-SHA-256").make_server(self._keys)
        self._has_first = False

    def respond(self, response: bytes | None) -> bytes | Claim:
        from scramp import ScramException

        if response is None:
            return b""
        try:
            if not self._has_first:
                self._server.set_client_first(_text(response))
                self._has_first = True
                return str(self._server.get_server_first()).encode()
            self._server.set_client_final(_text(response))
            signature = str(self._server.get_server_final()).encode()
            return ProofClaim(self._username, is_good=True, signature=signature)
        except ScramException as error:
            if self._has_first and error.server_error is not None:
                return ProofClaim(self._username, is_good=False)
            raise Malformed from error
        except (ValueError, TypeError) as error:  # the library's, of base64 that is none
            raise Malformed from error

    def _keys(self, username: str) -> tuple[bytes, bytes, bytes, int]:
        self._username = _name(username)  # the library has read =2C and =3D (RFC 5802 §5.1)
        return tuple(self._keys_of(self._username))  # type: ignore[return-value]


def exchange_of(mechanism: str, keys_of: KeysOf) -> Exchange:
    """The exchange of a mechanism that was offered. Raises KeyError for any other."""
    if mechanism == "SCRAM-SHA-256":
        return Scram(keys_of)
    return _EXCHANGES[mechanism]()


_EXCHANGES: dict[str, Callable[[], Exchange]] = {
    "PLAIN": Plain,
    "LOGIN": LoginByPrompts,
    "OAUTHBEARER": Bearer,
    "XOAUTH2": Bearer,
}

# What is sent before a token is refused (RFC 7628 §3.2.2); the client answers with nothing of use.
_TOKEN_REFUSED = b'{"status":"invalid_token"}'

# A line to send, a claim to judge, or the end.
Step = bytes | Claim | Reply


class LoginDialogue:
    """One AUTH, from its mechanism to its end (RFC 4954 §4)."""

    def __init__(self, mechanism: str, keys_of: KeysOf) -> None:
        self.mechanism = mechanism
        self._exchange = exchange_of(mechanism, keys_of)
        self._last_word: Reply | None = None  # None: the claim has not been judged

    def begin(self, initial: bytes) -> Step:
        """With the initial response of the command; empty: there was none."""
        return self.hear(initial) if initial else self._respond(None)

    def hear(self, line: bytes) -> Step:
        """A line of the client: "*" gives up, anything else is base64."""
        if line == b"*":
            return replies.LOGIN_GIVEN_UP
        if self._last_word is not None:
            return self._last_word
        try:
            # "=" alone is an empty response.
            return self._respond(b"" if line == b"=" else b64decode(line, validate=True))
        except binascii.Error:
            return replies.LOGIN_UNREADABLE

    def judged(self, claim: Claim, reply: Reply) -> Step:
        """A claim has been judged: `reply`, or what the client has to hear before it."""
        # RFC 4954 §4: a reply carries no data, so what there is to say is a challenge.
        if isinstance(claim, TokenClaim) and reply.code == 535:
            # RFC 7628 §3.2.3: the reason first, the refusal after the client's empty answer.
            self._last_word = reply
            return _challenge(_TOKEN_REFUSED)
        if isinstance(claim, ProofClaim) and reply.is_positive:
            # RFC 5802 §5: a client that does not like our signature gives up here.
            self._last_word = reply
            return _challenge(claim.signature)
        return reply

    def _respond(self, response: bytes | None) -> Step:
        try:
            said = self._exchange.respond(response)
        except Malformed:
            return replies.LOGIN_UNREADABLE
        return _challenge(said) if isinstance(said, bytes) else said


def _challenge(challenge: bytes) -> bytes:
    return b"334 " + b64encode(challenge) + b"\r\n"


# What may not stand in a name: it goes into logs, and into commands of other hosts.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _text(octets: bytes) -> str:
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed from None


def _name(text: str) -> str:
    if not text or len(text.encode()) > MAX_NAME or _CONTROL.search(text) is not None:
        raise Malformed
    return text


def _password_claim(username: str, password: str) -> PasswordClaim:
    if not password or len(password.encode()) > MAX_NAME:
        raise Malformed
    return PasswordClaim(_name(username), Secret(password))
