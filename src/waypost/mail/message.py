"""A message's content, and the trace fields put before it (RFC 5321 §4.4).

Content is read-only bytes in canonical form (every line ends in CRLF, no dot-stuffing). It is
never parsed and written again: a hop only ever prepends.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.utils import formatdate
from functools import lru_cache
from typing import BinaryIO, NamedTuple, Protocol

from waypost.mail.address import Address, IPAddress, literal_of
from waypost.mail.envelope import Arrival, Envelope, QueuedRecipient, QueueId
from waypost.mail.raw_octets import text_of

# RFC 5321 §6.3 asks for a limit of at least 100 in general; 50 is what Postfix and chasquid use,
# and a message that crossed 50 hosts is in a loop.
MAX_RECEIVED = 50
# Octets of encoded words that are decoded in one header.
MAX_DECODED = 4_096

# What begins with an octet is searched for much faster than what begins with "^".
_RECEIVED = re.compile(rb"\nreceived:", re.IGNORECASE)
# What may stand in a comment or an atom of a Received field without quoting.
_UNSAFE_IN_TRACE = re.compile(r"[^A-Za-z0-9!#$%&'*+\-./:=?\[\]^_`{|}~]")


class Content(Protocol):
    """Read-only content of one message; immutable once it exists.

    `size` is in octets. `inline` is the whole content when it is small and in memory; None: read
    it through `open()`, which blocks and so belongs in a worker thread.
    """

    @property
    def size(self) -> int: ...
    @property
    def inline(self) -> bytes | None: ...
    def open(self) -> BinaryIO: ...


class QueuedMessage(NamedTuple):
    """A message the hub has taken responsibility for."""

    queue_id: QueueId  # not the Message-ID
    envelope: Envelope
    arrival: Arrival
    content: Content
    prepend: bytes  # trace fields of this hop, to be sent before the content
    accepted_at: float
    is_eight_bit: bool  # some octet of the content is above 127
    reports_allowed: bool  # decided at MAIL: may a DSN go to the reverse-path at all?
    recipients: tuple[QueuedRecipient, ...]  # those of this lease
    auth_results: str = ""  # what was found of the sender, as in Authentication-Results (RFC 8601)

    @property
    def size(self) -> int:
        """Octets on the way out, before dot-stuffing."""
        return len(self.prepend) + self.content.size


def header_section(head: bytes) -> bytes:
    """The header fields at the start of `head`, with the CRLF of the last one."""
    if head.startswith(b"\r\n"):
        return b""
    end = head.find(b"\r\n\r\n")
    return head if end < 0 else head[: end + 2]


def count_received(head: bytes) -> int:
    """How many Received fields the header section at the start of `head` holds."""
    return len(_RECEIVED.findall(b"\n" + header_section(head)))


def header_fields(head: bytes) -> list[tuple[str, bytes]]:
    """Name (lower case) and unfolded value of each header field, in order."""
    fields: list[tuple[str, list[bytes]]] = []
    for line in header_section(head).split(b"\r\n"):
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1][1].append(line)
        elif b":" in line:
            raw_name, _, value = line.partition(b":")
            fields.append((raw_name.strip().lower().decode("latin-1"), [value.strip()]))
    # Joined once: a field may have a line for every three octets.
    return [(name, b"".join(lines)) for name, lines in fields]


@lru_cache(maxsize=4)
def decoded_fields(head: bytes) -> list[tuple[str, str]]:
    """As `header_fields`, with values decoded (RFC 2047) and white space as one space each.

    Values beyond MAX_DECODED are left as they are: the library takes time that grows with the
    square of their length, and everybody waits for it.
    """
    found = []
    left = MAX_DECODED
    for name, octets in header_fields(head):
        text = text_of(octets)
        if "=?" in text and len(text) <= left:
            left -= len(text)
            with contextlib.suppress(LookupError, ValueError, HeaderParseError):
                text = str(make_header(decode_header(text)))
        found.append((name, " ".join(text.split())))
    return found


@lru_cache(maxsize=4)
def _date_at(second: int) -> str:
    return formatdate(second, usegmt=False, localtime=False).replace("-0000", "+0000")


def date_field_value(at: float) -> str:
    """RFC 5322 date-time of `at` (UTC epoch seconds), in UTC."""
    return _date_at(int(at))


def trace_name(ip: IPAddress | None, hostname: str | None) -> str:
    """How this hub, or a peer, is called in trace fields: its name, else its literal."""
    if hostname:
        return hostname
    return "localhost" if ip is None else literal_text(ip)


def literal_text(ip: IPAddress) -> str:
    """The literal of an address."""
    return str(literal_of(ip))


def received_field(
    queue_id: QueueId,
    arrival: Arrival,
    at: float,
    hostname: str | None,
    only_recipient: Address | None,
) -> bytes:
    """The Received field of this hop (RFC 5321 §4.4).

    `only_recipient` is named in "for" and given only when the message has just one, so that
    recipients do not learn of each other (RFC 5321 §7.6).
    """
    by = trace_name(arrival.local_ip, hostname)
    if arrival.client_ip is None:
        source = "from localhost (local)"
    else:
        peer = literal_text(arrival.client_ip)
        source = f"from {_harmless(arrival.helo) or peer} ({peer})"
    if arrival.tls is not None:
        version, _, cipher = arrival.tls.partition(" ")
        source += f"\r\n\t(using {version} with cipher {cipher})"
    target = f"\r\n\tfor <{only_recipient}>" if only_recipient is not None else ""
    return (
        f"Received: {source}\r\n\tby {by} (Waypost) with {arrival.protocol} id {queue_id}"
        f"{target}; {date_field_value(at)}\r\n"
    ).encode()


@lru_cache(maxsize=4096)
def _harmless(helo: str) -> str:
    return _UNSAFE_IN_TRACE.sub("?", helo)[:255]


def delivery_fields(reverse_path: Address | None, delivered_to: Sequence[Address]) -> bytes:
    """Return-Path and Delivered-To, added where the message leaves the mail system."""
    path = "<>" if reverse_path is None else f"<{reverse_path}>"
    fields = [f"Return-Path: {path}\r\n"]
    fields += [f"Delivered-To: {address}\r\n" for address in delivered_to]
    return "".join(fields).encode()
