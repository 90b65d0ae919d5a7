"""How we look to others: a host that asks strangers about mailboxes should be in order itself."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from waypost.dns.blocklist import Blocklists, Listed, Listing
from waypost.dns.resolver import Resolver, ResolverUnavailable
from waypost.dns.reverse import Confirmation, ReverseNames, reverse_names
from waypost.mail.address import AddressLiteral, IPAddress
from waypost.net.interfaces import source_towards
from waypost.net.special import special_block


@dataclass(frozen=True, slots=True)
class Standing:
    """One of our addresses, as other hosts see it."""

    ip: IPAddress
    helo: str
    names: ReverseNames
    listings: Sequence[Listing]
    faults: Sequence[str]  # what others would hold against us; empty: nothing

    def as_json(self) -> dict[str, Any]:
        """For `waypost check --self --json`."""
        return {
            "ip": str(self.ip),
            "helo": self.helo,
            "ptr": list(self.names.names),
            "fcrdns": self.names.confirmation.value,
            "dnsbl": {listing.zone: listing.listed.value for listing in self.listings},
            "faults": list(self.faults),
        }


async def standing_of(
    ip: IPAddress, helo: str, *, resolver: Resolver, blocklists: Blocklists
) -> Standing:
    """Look at ourselves: PTR, FCrDNS, HELO and blocklists."""
    names = await reverse_names(resolver, ip)
    listings = await blocklists.ask(ip)
    faults: list[str] = []
    if names.confirmation is Confirmation.NONE:
        faults.append(f"{ip} has no name in DNS (PTR)")
    elif names.confirmation is Confirmation.FAIL:
        faults.append(f"{ip} is named {', '.join(names.names)}, which does not lead back to it")
    elif names.confirmation is Confirmation.UNKNOWN:
        faults.append(f"the name service did not say what {ip} is named")
    faults += await _helo_faults(ip, helo, resolver)
    faults += [
        f"{ip} is on the blocklist {listing.zone}: {listing.text or listing.code}"
        for listing in listings
        if listing.listed is Listed.YES
    ]
    return Standing(ip, helo, names, listings, faults)


async def _helo_faults(ip: IPAddress, helo: str, resolver: Resolver) -> list[str]:
    if helo.startswith("["):
        if helo == str(AddressLiteral(ip)):
            return []
        return [f"we say hello as {helo}, and others see {ip}; set check.helo"]
    forward = resolver.ipv4 if ip.version == 4 else resolver.ipv6
    try:
        records = (await forward(helo)).records
    except ResolverUnavailable as error:
        return [f"we say hello as {helo}, and {error}"]
    return [] if ip in records else [f"we say hello as {helo}, which does not lead to {ip}"]


class Standings:
    """Our addresses, each looked at once."""

    def __init__(
        self,
        *,
        resolver: Resolver,
        blocklists: Blocklists,
        helo: str | None,
        nat_addresses: Sequence[IPAddress],
    ) -> None:
        """`helo` None: the literal of the address others see; `nat_addresses`: outside ours."""
        self._resolver = resolver
        self._blocklists = blocklists
        self._helo = helo
        self._nat_addresses = tuple(nat_addresses)
        self._looked: dict[IPAddress, asyncio.Task[Standing]] = {}

    def helo_for(self, local: IPAddress) -> str:
        """What we call ourselves on a connection from this address of ours."""
        if self._helo is not None:
            return self._helo
        return str(AddressLiteral(self.seen_as(local) or local))

    def seen_as(self, local: IPAddress) -> IPAddress | None:
        """The address the Internet sees us at; None: nobody has told."""
        if special_block(local) is None:
            return local
        outside = [ip for ip in self._nat_addresses if ip.version == local.version]
        return next((ip for ip in outside if special_block(ip) is None), None)

    def seen_among(self, own: Collection[IPAddress]) -> list[IPAddress]:
        """The addresses the Internet sees us at, out of all of ours."""
        return sorted({seen for ip in own if (seen := self.seen_as(ip)) is not None}, key=str)

    async def faults_towards(self, ip: IPAddress) -> Sequence[str]:
        """What a host would hold against us, by the address we come to it from."""
        try:
            local = source_towards(ip)
        except OSError:
            return ()  # no way there: the connection will say so
        outside = self.seen_as(local)
        if outside is None:
            return (
                f"we are {local}, which others do not see; name the address they do in"
                " addresses.own",
            )
        return (await self.look(outside)).faults

    async def look(self, ip: IPAddress) -> Standing:
        """One address of ours."""
        if ip not in self._looked:
            self._looked[ip] = asyncio.get_running_loop().create_task(
                standing_of(
                    ip,
                    self.helo_for(ip),
                    resolver=self._resolver,
                    blocklists=self._blocklists,
                )
            )
        return await asyncio.shield(self._looked[ip])
