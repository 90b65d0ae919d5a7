"""Who a message is from and for, how it came, and what became of each recipient.

Values only. Words from RFC 5321, RFC 3461 (DSN parameters) and RFC 3464 (actions).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag, StrEnum
from typing import NamedTuple, NewType

from waypost.mail.address import Address, AddressLiteral, IPAddress, ip_text
from waypost.mail.reply import Reply

QueueId = NewType("QueueId", str)


class Body(StrEnum):
    """The BODY parameter of MAIL (RFC 6152, RFC 3030)."""

    SEVEN_BIT = "7BIT"
    EIGHT_BIT_MIME = "8BITMIME"
    BINARY_MIME = "BINARYMIME"


class Ret(StrEnum):
    """What a DSN returns of the message (RFC 3461 §4.3)."""

    FULL = "FULL"
    HEADERS = "HDRS"


class Notify(IntFlag):
    """When the sender wants a DSN (RFC 3461 §4.1)."""

    NEVER = 0
    SUCCESS = 1
    FAILURE = 2
    DELAY = 4


# RFC 3461 §4.1: without NOTIFY, failures are reported and delays may be.
DEFAULT_NOTIFY = Notify.FAILURE | Notify.DELAY


class Recipient(NamedTuple):
    """One forward-path as the client gave it."""

    forward_path: Address
    original_recipient: str | None = None  # "type;address" of ORCPT, decoded; None: not given
    notify: Notify | None = None  # None: not given


class Envelope(NamedTuple):
    """The envelope without its recipients."""

    reverse_path: Address | None  # None: the null reverse-path <>
    body: Body | None = None  # None: not given, which means 7BIT
    smtputf8: bool = False
    envid: str | None = None  # None: not given
    ret: Ret | None = None  # None: not given
    requiretls: bool = False  # RFC 8689: rather back than in clear


# What stands for the listener of the hub's own reports.
REPORT = "(report)"
# And of what it sends for mail that was held back.
STORM = "(storm)"


class Arrival(NamedTuple):
    """How a message came in: one value for all messages of a session."""

    protocol: str  # for Received's "with": SMTP, ESMTP, UTF8SMTP, LMTP … (RFC 3848, RFC 6531)
    client_ip: IPAddress | None  # None: a Unix socket, or the hub itself
    local_ip: IPAddress | None  # the address the client connected to; None: as above
    helo: str  # as the client said it; empty: nothing
    listener: str
    trusted: bool  # False: a stranger
    login: str | None = None  # the account logged in; None: none
    tls: str | None = None  # what was negotiated, as "TLSv1.3 TLS_AES_256_GCM_SHA384"; None: clear

    @property
    def is_report(self) -> bool:
        """True for a DSN the hub wrote itself."""
        return self.listener == REPORT


class RecipientStatus(IntEnum):
    """Where one recipient stands in the queue."""

    WAITING = 0  # next_attempt_at says when
    LEASED = 1  # an attempt is under way
    HELD = 2  # until an operator releases it
    FINISHED = 3  # delivered, relayed, failed or cancelled


class OutcomeKind(StrEnum):
    """What an attempt, or an operator, did to a recipient; mostly RFC 3464 §2.3.3 actions."""

    DELIVERED = "delivered"
    RELAYED = "relayed"
    DEFERRED = "deferred"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPPRESSED = "suppressed"  # another stands for it: a digest, or the same mail before


class Hop(NamedTuple):
    """One concrete place to try."""

    host: str  # as a person would write it: a literal or a name
    ip: IPAddress | None  # None: not an IP host (Unix socket)
    port: int

    def __str__(self) -> str:
        if self.ip is None:
            return self.host
        address = "" if self.host.startswith("[") else f"[{ip_text(self.ip)}]"
        return f"{self.host}{address}:{self.port}"


# Stands between a hop and what was negotiated with it.
OVER = "over"


class Outcome(NamedTuple):
    """What one attempt meant for one recipient; kind and reply code agree by construction."""

    kind: OutcomeKind
    reply: Reply
    hop: Hop | None = None  # None: the attempt needed or reached no host
    peer_reports: bool = False  # the next hop took over the duty of DSNs (RFC 3461 §4.2)
    changes: tuple[str, ...] = ()  # what was done to the message on its way out, in words
    is_ours_to_mend: bool = False  # deferred until the operator has done something: not given up
    tls: str | None = None  # what was negotiated with the hop; None: in clear
    wait_s: float = 0.0  # the next hop asks to be left alone for so long

    @property
    def way(self) -> str | None:
        """The hop and how it was spoken to, in words; None: as for `hop`."""
        if self.hop is None:
            return None
        return str(self.hop) if self.tls is None else f"{self.hop} {OVER} {self.tls}"

    @classmethod
    def of(
        cls,
        reply: Reply,
        *,
        success: OutcomeKind,
        hop: Hop | None = None,
        peer_reports: bool = False,
        changes: tuple[str, ...] = (),
        tls: str | None = None,
    ) -> Outcome:
        """From a reply: 2xx is `success`, 4xx deferred, 5xx failed."""
        if reply.is_positive:
            kind = success
        elif reply.is_transient:
            kind = OutcomeKind.DEFERRED
        else:
            kind = OutcomeKind.FAILED
        return cls(kind, reply, hop, peer_reports, changes, tls=tls)


@dataclass(slots=True)
class QueuedRecipient:
    """One recipient's place in the queue: state is per recipient, not per message."""

    number: int  # position in the message, from 0
    recipient: Recipient
    target: str  # where routing sends it, as in [[route]] to = […]
    rule: str  # what in the routing decided so
    status: RecipientStatus = RecipientStatus.LEASED
    attempts: int = 0
    next_attempt_at: float | None = None  # None: not waiting
    warned: bool = False  # the sender was told of the delay
    last_reply: str | None = None  # None: no attempt has ended
    last_hop: str | None = None  # None: no host was reached
    outcome: OutcomeKind | None = None  # None: not finished
    finished_at: float | None = None  # None: not finished


def sender_is_proven(
    reverse_path: Address | None,
    client_ip: IPAddress | None,
    own: frozenset[IPAddress] = frozenset(),
) -> bool:
    """True when reports may go to this return path.

    A literal return path is believed only when it equals the client's address: a DSN to any
    other would let a sender point the hub at a host of his choice. A client on this very host
    speaks for all addresses of this host. Names are believed; the gate judges where they lead.
    """
    if reverse_path is None:
        return False
    domain = reverse_path.domain
    if not isinstance(domain, AddressLiteral):
        return True
    # Who has come by a Unix socket is on this very host, too.
    is_here = client_ip is None or client_ip in own
    return domain.ip == client_ip or (is_here and domain.ip in own)
