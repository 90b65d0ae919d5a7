"""The seam to the name service: questions, answers, and the trouble that is neither.

"No such name" and "no such record" are kept apart (RFC 2308 §2): both are answers. What may be
different a minute later is an exception, so nobody takes it for an answer.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from typing import Generic, NamedTuple, Protocol, TypeVar

from waypost.errors import TemporaryError
from waypost.mail.address import IPAddress

# The servers the system's resolv.conf names.
SYSTEM = "system"

Record = TypeVar("Record", covariant=True)


class MailExchange(NamedTuple):
    """One MX record (RFC 5321 §5.1)."""

    preference: int  # lower is tried first
    host: str  # lower case, no dot at its end; empty: the root, so no mail (RFC 7505)


class TlsaRecord(NamedTuple):
    """One TLSA record (RFC 6698 §2.1)."""

    usage: int
    selector: int
    matching: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Answer(Generic[Record]):
    """What a name has of one type."""

    records: Sequence[Record]  # empty: none of this type
    exists: bool  # False: there is no such name at all (NXDOMAIN)
    canonical: str  # the name the records stand at, behind CNAMEs
    is_secure: bool  # the resolver says it validated them (RFC 4035 §3.2.3)
    expires_at: float  # time.monotonic()

    @property
    def ttl_s(self) -> int:
        """How long it may still be believed."""
        return max(0, round(self.expires_at - time.monotonic()))


class Trouble(StrEnum):
    """Why there is no answer."""

    TIMEOUT = "timeout"
    SERVFAIL = "servfail"
    REFUSED = "refused"
    BOGUS = "bogus"  # the signatures do not hold (RFC 4035 §5.5)
    NO_SERVERS = "no servers"  # none is configured


class ResolverUnavailable(TemporaryError):
    """The name service did not answer this question now."""

    status = (4, 3)

    def __init__(self, question: str, trouble: Trouble) -> None:
        super().__init__(f"DNS: {trouble.value} for {question}")
        self.trouble = trouble


class Resolver(Protocol):
    """Asks. Names are ASCII (A-labels) and absolute; every method raises ResolverUnavailable."""

    async def mx(self, name: str) -> Answer[MailExchange]:
        """Mail exchanges, in no order."""
        ...

    async def ipv4(self, name: str) -> Answer[IPAddress]:
        """A records."""
        ...

    async def ipv6(self, name: str) -> Answer[IPAddress]:
        """AAAA records; one of an IPv4 address (::ffff:0:0/96) is that address."""
        ...

    async def txt(self, name: str) -> Answer[str]:
        """TXT records, the strings of each joined."""
        ...

    async def tlsa(self, name: str) -> Answer[TlsaRecord]:
        """TLSA records, at a name as _25._tcp.mx.example."""
        ...

    async def ptr(self, ip: IPAddress) -> Answer[str]:
        """Names an address has (RFC 1035 §3.5, RFC 3596 §2.5)."""
        ...

    async def validates(self) -> bool:
        """True when the resolver checks DNSSEC, so an answer that is not secure is unsigned."""
        ...


def split_server(text: str) -> tuple[str, int]:
    """Address and port of a server; raises ValueError."""
    host, port = text, "53"
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is not [IPv6]:port")
        port = rest[1:] or port
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} has no port from 1 to 65535")
    return str(ip_address(host)), int(port)
