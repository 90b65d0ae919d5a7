"""What a server session is told, and what it asks of whoever runs it (smtp/server)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from waypost.mail.reply import Reply
from waypost.smtp.command import MailRequested, RcptRequested
from waypost.smtp.sasl import Claim, KeysOf


@dataclass(slots=True)
class ContentRequested:
    """DATA, or the first BDAT; wants an answer: 354 to go on (never sent for BDAT)."""

    is_binary: bool


@dataclass(slots=True)
class ContentChunk:
    """Canonical content; wants no answer."""

    content: bytes


@dataclass(slots=True)
class ContentEnded:
    """The true end of the content was read; wants an answer, for LMTP one per recipient.

    `fault` is the refusal the content has earned by its form; None: it is fine.
    """

    fault: Reply | None
    was_mended: bool  # line ends were normalised (lenient sessions only)


@dataclass(slots=True)
class TlsRequested:
    """STARTTLS (RFC 3207); wants an answer: 220, then a handshake, then `encrypted()`."""


@dataclass(slots=True)
class LoginRequested:
    """AUTH has come to its claim; wants an answer: 235 when it is good."""

    mechanism: str
    claim: Claim


@dataclass(slots=True)
class TransactionDropped:
    """RSET, a new greeting, or a failed chunk: forget the transaction; wants no answer."""


Event = (
    MailRequested
    | RcptRequested
    | ContentRequested
    | ContentChunk
    | ContentEnded
    | TlsRequested
    | LoginRequested
    | TransactionDropped
)


class Transcript(Protocol):
    """What follows a session's dialogue as it goes."""

    def heard(self, line: bytes, *, is_response: bool) -> None:
        """A command came; or, in a login, the client's response to a challenge."""
        ...

    def content(self, size: int) -> None:
        """Content came to its end."""
        ...

    def said(self, octets: bytes) -> None:
        """Replies go out."""
        ...


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What a session offers; one value shared by all sessions of a listener."""

    max_message_bytes: int
    max_recipients: int
    is_lmtp: bool = False
    lenient: bool = False  # a trusted client: mend what is harmless to mend
    in_step: bool = False  # a stranger: who goes on before an answer it must wait for is cut off
    software: str = "Waypost"


@dataclass(frozen=True, slots=True)
class LoginOffer:
    """How clients of a listener may log in."""

    mechanisms: tuple[str, ...]  # the best first
    keys_of: KeysOf
    needs_tls: bool = True
