"""Which senders a client may use: a literal is to be proven, a login has addresses of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from waypost.accounts.accounts import Account
from waypost.mail import reply as replies
from waypost.mail.address import Address, AddressLiteral, IPAddress
from waypost.mail.authentication import LITERAL, AuthResult
from waypost.mail.envelope import Arrival
from waypost.mail.reply import Reply
from waypost.mail.submission import authors_of, from_values
from waypost.net.interfaces import OwnAddresses
from waypost.net.networks import NOWHERE, Networks
from waypost.routing.table import RoutingTable


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
    # The addresses of each device that the operator says has several: one proves the others.
    devices: tuple[frozenset[IPAddress], ...] = ()


class Senders:
    """Judges senders by the policy, and by the accounts and routes that hold now."""

    def __init__(
        self,
        policy: SenderPolicy,
        *,
        own: OwnAddresses,
        account_of: Callable[[str], Account | None],
        table: Callable[[], RoutingTable],
    ) -> None:
        """`policy` may be replaced while running (reload).

        `account_of` gives the account that somebody is logged in with; None: it was removed since.
        """
        self.policy = policy
        self._own = own
        self._account_of = account_of
        self._table = table

    def judge(
        self, arrival: Arrival, reverse_path: Address | None
    ) -> tuple[list[AuthResult], Reply | None]:
        """What is found of a sender, and why it may not be used; None: it may."""
        results: list[AuthResult] = []
        if arrival.login is not None:
            results.append(AuthResult("auth", "pass", "smtp.auth", arrival.login))
            if reverse_path is not None and not self.is_theirs(arrival, reverse_path):
                return results, replies.SENDER_NOT_YOURS
        mode = self.policy.literal_sender
        if reverse_path is not None and mode is not LiteralSender.OFF:
            found = self._judge_literal(reverse_path, "smtp.mailfrom", arrival)
            if found is not None:
                results.append(found)
                if found.result == "fail" and mode is LiteralSender.PROVE:
                    return results, replies.LITERAL_NOT_PROVEN
        return results, None

    def judge_authors(self, arrival: Arrival, section: bytes) -> list[AuthResult]:
        """What is found of literals in the From field of a header section."""
        # Nearly no header has a bracket.
        if b"[" not in section or self.policy.literal_sender is LiteralSender.OFF:
            return []
        if not any(b"@[" in value for value in from_values(section)):
            return []
        found = [
            self._judge_literal(author, "header.from", arrival) for author in authors_of(section)
        ]
        return [result for result in found if result is not None]

    def is_theirs(self, arrival: Arrival, address: Address) -> bool:
        """True for an address of whoever is logged in."""
        account = None if arrival.login is None else self._account_of(arrival.login)
        if account is None:
            return False
        return account.may_use(address) or self._table().reaches(address, account.name, arrival)

    def is_another_of(self, address: Address, client: IPAddress | None) -> bool:
        """True for a sender at another address of the device that the client is."""
        domain = address.domain
        return isinstance(domain, AddressLiteral) and any(
            client in one and domain.ip in one for one in self.policy.devices
        )

    def _judge_literal(self, address: Address, where: str, arrival: Arrival) -> AuthResult | None:
        """Whether a sender at a literal is who it says; None: its domain is no literal.

        `where` it stands: smtp.mailfrom or header.from (RFC 8601 §2.2). pass: the client is that
        host, or somebody whose word counts says so. neutral: the literal is ours, and the client
        one we trust. fail: anything else.
        """
        domain = address.domain
        if not isinstance(domain, AddressLiteral):
            return None
        ip, client, own = domain.ip, arrival.client_ip, self._own
        is_here = client is None or client in own or client.is_loopback
        if ip == client:
            result, reason = "pass", ""
        elif self.is_another_of(address, client):
            result, reason = "pass", "by another address of that device"
        elif is_here and ip in own:
            result, reason = "pass", "by a program of that host"
        elif self.is_theirs(arrival, address):
            result, reason = "pass", "by a login"
        elif client is None or client in self.policy.vouchers:
            result, reason = "pass", "by a hub whose word counts"
        elif arrival.trusted and (ip in own or ip == arrival.local_ip):
            result, reason = "neutral", "an address of this hub, used by a trusted client"
        else:
            result, reason = "fail", ""
        return AuthResult(LITERAL, result, where, str(address), reason)
