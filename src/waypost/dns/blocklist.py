"""DNS blocklists (RFC 5782): whether a zone lists an address, told apart from a zone out of order.

A list counts only after it has passed its own test points; what is outside of 127.0.0.0/8, or in
127.255.255.0/24, is an error of the list or of our right to ask it, and never a listing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address

from waypost.dns.resolver import Resolver, ResolverUnavailable
from waypost.mail.address import IPAddress

# RFC 5782 §5: the first must be listed, the second must not; IPv6 as v4-mapped.
_TEST_POINTS: dict[int, tuple[IPAddress, IPAddress]] = {
    4: (IPv4Address("127.0.0.2"), IPv4Address("127.0.0.1")),
    6: (IPv6Address("::ffff:127.0.0.2"), IPv6Address("::ffff:127.0.0.1")),
}
_LISTINGS = IPv4Network("127.0.0.0/8")
# What large lists answer to those who ask in a wrong way: spamhaus.org, news of 2019 and 2021.
_ERRORS = IPv4Network("127.255.255.0/24")
# A list that passed its test is believed for this long.
_TESTED_S = 3_600.0


class Listed(StrEnum):
    """What a blocklist says of an address."""

    YES = "yes"
    NO = "no"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Listing:
    """One zone's word on one address."""

    zone: str
    ip: IPAddress
    listed: Listed
    code: str | None  # the address it answered with; None: it did not
    text: str  # the list's reason, or what is wrong


class Blocklists:
    """The zones the operator chose."""

    def __init__(self, resolver: Resolver, zones: Sequence[str]) -> None:
        self._resolver = resolver
        self._zones = tuple(zones)
        self._passed_at: dict[tuple[str, int], float] = {}

    async def ask(self, ip: IPAddress) -> list[Listing]:
        """What each zone says of an address, in the operator's order."""
        return list(await asyncio.gather(*(self._ask_zone(zone, ip) for zone in self._zones)))

    async def _ask_zone(self, zone: str, ip: IPAddress) -> Listing:
        fault = await self._fault_of(zone, ip.version)
        if fault is not None:
            return Listing(zone, ip, Listed.ERROR, None, fault)
        listed, code, text = await self._look_up(zone, ip)
        return Listing(zone, ip, listed, code, text)

    async def _fault_of(self, zone: str, version: int) -> str | None:
        """What is wrong with a zone; None: it passes its test points."""
        key = (zone, version)
        if time.monotonic() - self._passed_at.get(key, -_TESTED_S) < _TESTED_S:
            return None
        must, must_not = _TEST_POINTS[version]
        for point, wanted in ((must, Listed.YES), (must_not, Listed.NO)):
            listed, _, text = await self._look_up(zone, point)
            if listed is Listed.ERROR:
                return text
            if listed is not wanted:
                word = "does not list" if wanted is Listed.YES else "lists"
                return f"it {word} the test point {point} (RFC 5782 §5): not a list in service"
        self._passed_at[key] = time.monotonic()
        return None

    async def _look_up(self, zone: str, ip: IPAddress) -> tuple[Listed, str | None, str]:
        name = query_name(ip, zone)
        try:
            answer = await self._resolver.ipv4(name)
        except ResolverUnavailable as error:
            return Listed.ERROR, None, str(error)
        codes = sorted(IPv4Address(record.packed) for record in answer.records)
        if not codes:
            return Listed.NO, None, ""
        for code in codes:
            if code in _ERRORS or code not in _LISTINGS:
                word = f"it answers {code}, which is an error, not a listing"
                return Listed.ERROR, str(code), word
        try:
            text = " ".join((await self._resolver.txt(name)).records)
        except ResolverUnavailable:
            text = ""  # listed it is, for whatever reason
        return Listed.YES, str(codes[0]), text


def query_name(ip: IPAddress, zone: str) -> str:
    """The name to ask for: octets, or nibbles for IPv6, in reverse (RFC 5782 §2.1, §2.4)."""
    labels = str(ip).split(".") if isinstance(ip, IPv4Address) else list(ip.packed.hex())
    return f"{'.'.join(reversed(labels))}.{zone}"
