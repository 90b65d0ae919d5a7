"""Checks an address, as far as asked: by itself, by what DNS says, by what its host answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from waypost.check import domain as domains
from waypost.check import syntax
from waypost.check.assessment import NOTHING, Assessment, Depth, Evidence
from waypost.check.findings import Finding, weigh
from waypost.check.inquiry import Inquiry
from waypost.check.reasons import REASONS
from waypost.dns.blocklist import Blocklists, Listing
from waypost.dns.resolver import Resolver
from waypost.dns.reverse import ReverseNames, reverse_names
from waypost.mail.address import Address, AddressLiteral, Domain, IPAddress
from waypost.mail.correction import near_provider
from waypost.mail.header_address import Mailbox
from waypost.net.networks import Networks
from waypost.net.special import special_block

# Addresses below this name force a verdict, for people who script against it: the local part is a
# code with "-" for "." and "_", as in ip-private@sandbox.waypost.invalid (RFC 6761 §6.4).
SANDBOX = "sandbox.waypost.invalid"
_SANDBOX_CODES = {code.replace(".", "-").replace("_", "-"): code for code in REASONS}

# RFC 6761 §6.4 and RFC 7686 §2: not to be looked up.
_NOT_IN_DNS = frozenset({"invalid", "onion"})
# A domain nobody answers for was perhaps mistyped.
_PERHAPS_MISTYPED = frozenset({"dns.nxdomain", "dns.null_mx", "dns.no_address"})


@dataclass(slots=True)
class _Found:
    """What a check has found so far."""

    findings: list[Finding]
    suggestion: str | None
    domain: domains.DomainFacts | None = None
    names: dict[IPAddress, ReverseNames] = field(default_factory=dict)
    listings: list[Listing] = field(default_factory=list)
    places: list[tuple[str, IPAddress]] = field(default_factory=list)  # hosts, in order


def assess(text: str, trusted: Networks) -> Assessment:
    """Check what can be known without asking anybody."""
    begun_at, begun = time.time(), time.perf_counter()
    mailbox, findings, suggestion = syntax.read(text, trusted)
    findings = [*findings, *_forced(mailbox)]
    took_ms = (time.perf_counter() - begun) * 1000
    return Assessment(
        *(text, Depth.SYNTAX, mailbox, findings, weigh(findings), suggestion),
        *(begun_at, took_ms),
    )


class Checker:
    """Checks that ask: the name service, and hosts where there is an inquiry."""

    def __init__(
        self,
        *,
        resolver: Resolver,
        blocklists: Blocklists,
        reachable: Networks,
        probed: Networks,
        inquiry: Inquiry | None,
    ) -> None:
        """`reachable` are networks that are not global and mail can go to all the same; `probed`
        those of them the operator listed for checks.

        `inquiry` None: no host is asked, so the depth is "dns".
        """
        self._probed = probed
        self._resolver = resolver
        self._blocklists = blocklists
        self._reachable = reachable
        self._inquiry = inquiry

    @property
    def is_port_blocked(self) -> bool:
        """Nobody at all could be reached: the trouble is ours."""
        return self._inquiry is not None and self._inquiry.is_port_blocked

    async def check(self, text: str) -> Assessment:
        """Check one address as deep as can be. Troubles on the way are findings."""
        begun_at, begun = time.time(), time.perf_counter()
        mailbox, findings, suggestion = syntax.read(text, self._reachable)
        found = _Found([*findings, *_forced(mailbox)], suggestion)
        depth, smtp = Depth.SYNTAX, NOTHING
        address = None if mailbox is None else mailbox.address
        if address is not None and _goes_on(found):
            depth = Depth.DNS
            await self._ask_dns(address, found)
            if self._inquiry is not None and _goes_on(found):
                depth = Depth.SMTP
                answer = await self._inquiry.ask(address, found.places)
                found.findings += answer.findings
                smtp = answer.evidence
        evidence = Evidence(
            *(found.domain, found.names, found.listings),
            *(smtp.smtp, smtp.retry_at, smtp.is_from_cache),
        )
        took_ms = (time.perf_counter() - begun) * 1000
        return Assessment(
            *(text, depth, mailbox, found.findings, weigh(found.findings), found.suggestion),
            *(begun_at, took_ms, evidence),
        )

    async def _ask_dns(self, address: Address, found: _Found) -> None:
        domain = address.domain
        if isinstance(domain, AddressLiteral):
            found.places = [(str(domain), domain.ip)]
            await self._ask_about_hosts([domain.ip], found)
            found.findings.append(Finding("dns.literal", f"mail goes straight to {domain.ip}"))
        elif isinstance(domain, Domain) and domain.ascii.rpartition(".")[2] in _NOT_IN_DNS:
            text = f"{domain} is in no DNS, and must not be asked for there"
            found.findings.append(Finding("dns.nxdomain", text))
        elif isinstance(domain, Domain):
            facts = found.domain = await domains.look_up(self._resolver, domain.ascii)
            said = domains.findings_of(domain.ascii, facts, self._is_reachable)
            found.findings += said
            if said[0].code in _PERHAPS_MISTYPED and found.suggestion is None:
                provider = near_provider(domain.ascii)
                if provider is not None:
                    found.findings.append(Finding("possible_typo", f"{provider} is near"))
                    found.suggestion = str(Address(address.local_part, Domain(provider)))
            found.places = [place for place in facts.places if self._is_reachable(place[1])]
            first = [ip for host, ip in found.places if host == found.places[0][0]]
            await self._ask_about_hosts(first, found)

    async def _ask_about_hosts(self, ips: Sequence[IPAddress], found: _Found) -> None:
        """Names and listings; public blocklists are not told of private addresses."""
        names = await asyncio.gather(*(reverse_names(self._resolver, ip) for ip in ips))
        found.names.update(zip(ips, names, strict=True))
        public = [ip for ip in ips if special_block(ip) is None]
        for listings in await asyncio.gather(*(self._blocklists.ask(ip) for ip in public)):
            found.listings += listings
        for ip in ips:
            listed = [listing for listing in found.listings if listing.ip == ip]
            found.findings += domains.host_findings(ip, found.names[ip], listed)

    def _is_reachable(self, ip: IPAddress) -> bool:
        """Whether mail for a name could go there: a name that leads to loopback leads nowhere."""
        if special_block(ip) is None or ip in self._probed:
            return True
        return ip in self._reachable and not ip.is_loopback


def _goes_on(found: _Found) -> bool:
    """Whether all is well so far, and nothing is decided."""
    primary = weigh(found.findings)
    return primary.reason.is_provisional and not primary.is_forced


def _forced(mailbox: Mailbox | None) -> list[Finding]:
    if mailbox is None or mailbox.domain.lower() != SANDBOX:
        return []
    code = _SANDBOX_CODES.get(mailbox.local_part.lower())
    if code is None or REASONS[code].verdict is None:
        return []
    return [Finding(code, "forced by a sandbox address", is_forced=True)]
