"""From a next hop to the concrete places to try, in order.

An address literal is exactly one hop, with no DNS (RFC 5321 §5.1). A name of the operator's is its
addresses; a recipient's domain goes by MX, its own host where it has none.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby
from pathlib import Path

from waypost.dns.addresses import addresses_of
from waypost.dns.resolver import Resolver
from waypost.errors import NoWay
from waypost.mail.address import Address, AddressLiteral, Domain, IPAddress
from waypost.mail.envelope import Hop
from waypost.oauth.settings import OAuthSettings
from waypost.routing.exchanges import Exchange, exchanges_of
from waypost.routing.targets import HostPort, Target, UnixPath
from waypost.smtp.auth import Mechanism, Secret

# Whether a host, by name or address, is this hub itself.
IsOurs = Callable[[str, IPAddress | None], bool]


@dataclass(frozen=True, slots=True)
class Host:
    """One host: all its addresses are tried before the next host is."""

    hops: tuple[Hop, ...]
    is_proven: bool = True  # False: an MX record that nobody validated says that it takes the mail

    @property
    def name(self) -> str:
        """The host as a person would write it."""
        return self.hops[0].host

    def __str__(self) -> str:
        return " or ".join(map(str, self.hops))


@dataclass(frozen=True, slots=True)
class PaceSettings:
    """What a relay allows; None: as much as comes."""

    connections: int | None = None  # at once
    messages_per_minute: int | None = None
    messages_per_day: int | None = None


class Oversize(StrEnum):
    """What becomes of mail that is too large for a relay."""

    BOUNCE = "bounce"
    STRIP = "strip"  # it goes without its largest attachments


@dataclass(frozen=True, slots=True)
class Relay:
    """A smart host of the configuration: tried in this order."""

    name: str
    hosts: tuple[AddressLiteral | Domain, ...]
    port: int
    tls: str = "verify"  # one of tls/policy.Level
    ca: Path | None = None  # who may vouch for it; None: whom this system trusts
    username: str | None = None  # None: nobody logs in
    password: Secret | None = None
    auth: Mechanism | None = None  # None: PLAIN or LOGIN, whichever it offers
    oauth: OAuthSettings | None = None  # where access tokens come from; None: none are used
    alarm: Target | None = None  # who is told when the login is lost; None: postmaster here
    rewrite_from: Address | None = None  # who sends, for the relay; None: whoever does
    max_message: int | None = None  # octets it is given at most; None: what it says itself
    oversize: Oversize = Oversize.BOUNCE
    pace: PaceSettings = field(default_factory=PaceSettings)
    fallback: str | None = None  # the relay for when this one cannot be used; None: there is none


async def hosts_to(next_hop: HostPort | UnixPath, resolver: Resolver) -> list[Host]:
    """The host of a target that names it. Raises as `_host`."""
    if isinstance(next_hop, UnixPath):
        return [Host((Hop(next_hop.path, None, 0),))]
    return [await _host(next_hop.host, next_hop.port, resolver)]


async def hosts_of_relay(relay: Relay, resolver: Resolver) -> list[Host]:
    """The hosts of a relay that have an address; raises what the first of them met if none has."""
    found = await asyncio.gather(
        *(_host(host, relay.port, resolver) for host in relay.hosts), return_exceptions=True
    )
    hosts = [host for host in found if isinstance(host, Host)]
    troubles = [trouble for trouble in found if isinstance(trouble, BaseException)]
    if not hosts:
        raise troubles[0]
    return hosts


async def hosts_direct(
    recipient: Address, port: int, resolver: Resolver, is_ours: IsOurs
) -> list[Host]:
    """The hosts that take mail for a recipient, the most preferred first (RFC 5321 §5.1).

    Raises NoWay, ResolverUnavailable.
    """
    domain = recipient.domain
    if isinstance(domain, AddressLiteral):
        return [Host((Hop(str(domain), domain.ip, port),))]
    if not isinstance(domain, Domain) or domain.as_ip() is not None:
        raise NoWay(550, f"No way is known to {domain}", (1, 2))
    found = await exchanges_of(resolver, domain.ascii)
    if not found.exists:
        raise NoWay(550, f"There is no domain {domain}", (1, 2))
    if found.is_null:
        raise NoWay(556, f"{domain} takes no mail (RFC 7505)", (1, 10))
    exchanges = _before_us(found.exchanges, is_ours)
    if not exchanges:
        raise NoWay(554, f"Mail for {domain} comes back to this host", (4, 6))
    hosts = [
        Host(
            tuple(Hop(exchange.host, ip, port) for ip in exchange.addresses),
            # A host of the domain is no stranger to it, whoever says that it takes its mail.
            found.is_secure or f".{exchange.host}".endswith(f".{domain.ascii}"),
        )
        for exchange in _in_random_order(exchanges)
        if exchange.addresses
    ]
    if not hosts:
        trouble = next((exchange.trouble for exchange in exchanges if exchange.trouble), None)
        if trouble is not None:
            raise trouble
        raise NoWay(550, f"No host that takes mail for {domain} has an address", (4, 4))
    return hosts


def _before_us(exchanges: Sequence[Exchange], is_ours: IsOurs) -> list[Exchange]:
    """Without ourselves and everybody less preferred, or mail would go round (RFC 5321 §5.1)."""
    ours = [
        exchange.preference
        for exchange in exchanges
        if is_ours(exchange.host, None) or any(is_ours("", ip) for ip in exchange.addresses)
    ]
    if not ours:
        return list(exchanges)
    return [exchange for exchange in exchanges if exchange.preference < min(ours)]


def _in_random_order(exchanges: Sequence[Exchange]) -> list[Exchange]:
    """By preference, and shuffled within one (RFC 5321 §5.1), so that equal hosts share."""
    shuffled: list[Exchange] = []
    for _, equal in groupby(exchanges, key=lambda exchange: exchange.preference):
        group = list(equal)
        random.shuffle(group)
        shuffled += group
    return shuffled


async def _host(host: AddressLiteral | Domain, port: int, resolver: Resolver) -> Host:
    """A host that the operator named.

    Raises ResolverUnavailable, or NoWay with a temporary code: mail waits until the zone or the
    configuration is repaired, and does not go back to its senders for it.
    """
    if isinstance(host, AddressLiteral):
        return Host((Hop(str(host), host.ip, port),))
    addresses = await addresses_of(resolver, host.ascii)
    if not addresses:
        raise NoWay(451, f"{host} has no address", (4, 4))
    return Host(tuple(Hop(host.ascii, ip, port) for ip in addresses))
