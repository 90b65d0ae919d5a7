"""Which senders a client may use: a literal is to be proven, a login has addresses of its own."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from waypost.mail.address import Address, AddressLiteral
from waypost.mail.authentication import LITERAL, AuthResult
from waypost.mail.envelope import Arrival
from waypost.net.interfaces import OwnAddresses
from waypost.net.networks import NOWHERE, Networks


class LiteralSender(StrEnum):
    """What becomes of a sender at an address literal."""

    PROVE = "prove"  # refused where it is not proven
    RECORD = "record"  # only written down
    OFF = "off"


@dataclass(frozen=True, slots=True)
class SenderPolicy:
    """The part of [policy] that senders are judged by."""

    literal_sender: LiteralSender = LiteralSender.PROVE
    vouchers: Networks = NOWHERE  # hubs whose word counts for other hosts' literals


def judge_literal(
    address: Address,
    where: str,
    arrival: Arrival,
    *,
    own: OwnAddresses,
    vouchers: Networks,
    is_theirs: bool,
) -> AuthResult | None:
    """Whether a sender at a literal is who it says; None: its domain is no literal.

    `where` it stands: smtp.mailfrom or header.from (RFC 8601 §2.2); `is_theirs`: it is an address
    of whoever is logged in.
    pass: the client is that host, or somebody whose word counts says so. neutral: the literal is
    ours, and the client one we trust. fail: anything else.
    """
    domain = address.domain
    if not isinstance(domain, AddressLiteral):
        return None
    ip, client = domain.ip, arrival.client_ip
    is_here = client is None or client in own or client.is_loopback
    if ip == client:
        result, reason = "pass", ""
    elif is_here and ip in own:
        result, reason = "pass", "by a program of that host"
    elif is_theirs:
        result, reason = "pass", "by a login"
    elif client is None or client in vouchers:
        result, reason = "pass", "by a hub whose word counts"
    elif arrival.trusted and (ip in own or ip == arrival.local_ip):
        result, reason = "neutral", "an address of this hub, used by a trusted client"
    else:
        result, reason = "fail", ""
    return AuthResult(LITERAL, result, where, str(address), reason)
