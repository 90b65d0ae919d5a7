"""What the name service says of a domain and of its hosts (depth "dns")."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from waypost.check.findings import Finding
from waypost.dns.blocklist import Listed, Listing
from waypost.dns.resolver import Resolver, ResolverUnavailable, Trouble
from waypost.dns.reverse import Confirmation, ReverseNames
from waypost.mail.address import IPAddress
from waypost.net.special import describe
from waypost.routing.exchanges import Exchange, Exchanges, exchanges_of

T = TypeVar("T")

# RFC 7208 §4.6.1: version, then terms; what they mean is the receiver's to evaluate.
_SPF_VERSION = re.compile(r"v=spf1(?: |$)", re.IGNORECASE)
_SPF_TERM = re.compile(
    r"[+\-?~]?(?:all|include:\S+|(?:a|mx)(?::[^\s/]+)?(?:/\d{1,2})?(?://\d{1,3})?|ptr(?::\S+)?"
    r"|ip4:[\d.]+(?:/\d{1,2})?|ip6:[0-9A-Fa-f:.]+(?:/\d{1,3})?|exists:\S+)"
    r"|[A-Za-z][A-Za-z0-9\-_.]*=\S*",
    re.IGNORECASE,
)
_SPF_ALL = re.compile(r"[+\-?~]?all", re.IGNORECASE)
_DMARC_VERSION = re.compile(r"v[ \t]*=[ \t]*DMARC1[ \t]*(?:;|$)")
_DMARC_TAG = re.compile(r";\s*([a-z]+)\s*=\s*([^;\s]*)", re.IGNORECASE)
_DMARC_POLICIES = ("none", "quarantine", "reject")
# RFC 9989 §4.10: how far up the tree a policy may stand.
_MAX_WALK = 8

_TROUBLES = {
    Trouble.TIMEOUT: "dns.timeout",
    Trouble.SERVFAIL: "dns.servfail",
    Trouble.REFUSED: "dns.servfail",
    Trouble.BOGUS: "dns.bogus",
    Trouble.NO_SERVERS: "dns.no_servers",
}


class Dnssec(StrEnum):
    """Whether signatures hold."""

    SECURE = "secure"
    INSECURE = "insecure"  # unsigned, says a resolver that checks
    BOGUS = "bogus"
    UNKNOWN = "unknown"  # the resolver does not check


@dataclass(frozen=True, slots=True)
class Spf:
    """A domain's word on who sends its mail, as far as its form goes (RFC 7208)."""

    is_present: bool
    all: str | None = None  # the term for everybody else, as "-all"; None: there is none
    is_valid: bool = True  # one record, of known terms


@dataclass(frozen=True, slots=True)
class Dmarc:
    """A domain's word on forged mail (RFC 9989)."""

    is_present: bool
    policy: str | None = None  # none, quarantine or reject; None: no such tag, or another word
    at: str | None = None  # the name it stands at, which may be a parent's


@dataclass(frozen=True, slots=True)
class DomainFacts:
    """All that was found of a domain."""

    exchanges: Exchanges | None  # None: the name service was in trouble
    trouble: ResolverUnavailable | None
    dnssec: Dnssec
    spf: Spf | None  # None: not known
    dmarc: Dmarc | None  # None: not known
    has_mta_sts: bool | None  # None: not known

    @property
    def places(self) -> list[tuple[str, IPAddress]]:
        """Host and address, in the order a sender tries them."""
        if self.exchanges is None:
            return []
        return [
            (exchange.host, ip)
            for exchange in self.exchanges.exchanges
            for ip in exchange.addresses
        ]


async def look_up(resolver: Resolver, name: str) -> DomainFacts:
    """Ask all there is to ask of a domain at once."""
    exchanges, spf, dmarc, has_mta_sts, validates = await asyncio.gather(
        _or_trouble(exchanges_of, resolver, name),
        _or_trouble(_spf, resolver, name),
        _or_trouble(_dmarc, resolver, name),
        _or_trouble(_mta_sts, resolver, name),
        resolver.validates(),
    )
    trouble: ResolverUnavailable | None = None
    if isinstance(exchanges, ResolverUnavailable):
        trouble = exchanges
        dnssec = Dnssec.BOGUS if trouble.trouble is Trouble.BOGUS else Dnssec.UNKNOWN
    elif exchanges.is_secure:
        dnssec = Dnssec.SECURE
    else:
        dnssec = Dnssec.INSECURE if validates else Dnssec.UNKNOWN
    return DomainFacts(
        _known(exchanges), trouble, dnssec, _known(spf), _known(dmarc), _known(has_mta_sts)
    )


async def _or_trouble(
    ask: Callable[[Resolver, str], Awaitable[T]], resolver: Resolver, name: str
) -> T | ResolverUnavailable:
    try:
        return await ask(resolver, name)
    except ResolverUnavailable as error:
        return error


def _known(answer: T | ResolverUnavailable) -> T | None:
    return None if isinstance(answer, ResolverUnavailable) else answer


async def _spf(resolver: Resolver, name: str) -> Spf:
    texts = (await resolver.txt(name)).records
    records = [text for text in texts if _SPF_VERSION.match(text) is not None]
    if not records:
        return Spf(is_present=False)
    terms = records[0].split()[1:]
    every = [term for term in terms if _SPF_ALL.fullmatch(term) is not None]
    is_valid = len(records) == 1 and all(_SPF_TERM.fullmatch(term) is not None for term in terms)
    # RFC 7208 §5.1: what stands behind the first is never looked at.
    return Spf(True, every[0].lower() if every else None, is_valid)


async def _dmarc(resolver: Resolver, name: str) -> Dmarc:
    """The policy that holds for a domain, found by walking up the tree (RFC 9989 §4.10)."""
    labels = name.split(".")
    own = await _dmarc_tags(resolver, name)
    if own is not None:
        return _dmarc_of(own, "p", name)
    found: tuple[int, dict[str, str]] | None = None  # where the organization's record stands
    for start in range(max(1, len(labels) - _MAX_WALK + 1), len(labels)):
        try:
            tags = await _dmarc_tags(resolver, ".".join(labels[start:]))
        except ResolverUnavailable:
            if found is None:
                raise
            break  # it has a record, and nothing is known that goes before it
        if tags is None:
            continue
        # A registry's record is for those below it that have none.
        if tags.get("psd") != "y" or found is None or found[0] != start - 1:
            found = start, tags
        if tags.get("psd") in ("y", "n"):
            break
    if found is None:
        return Dmarc(is_present=False)
    start, tags = found
    return _dmarc_of(tags, "sp" if "sp" in tags else "p", ".".join(labels[start:]))


async def _dmarc_tags(resolver: Resolver, name: str) -> dict[str, str] | None:
    """What the one record of a name says; None: it has none, or several, which is none."""
    texts = (await resolver.txt(f"_dmarc.{name}")).records
    records = [text for text in texts if _DMARC_VERSION.match(text) is not None]
    if len(records) != 1:
        return None
    return {key.lower(): value.lower() for key, value in _DMARC_TAG.findall(records[0])}


def _dmarc_of(tags: Mapping[str, str], tag: str, name: str) -> Dmarc:
    policy = tags.get(tag)
    return Dmarc(True, policy if policy in _DMARC_POLICIES else None, f"_dmarc.{name}")


async def _mta_sts(resolver: Resolver, name: str) -> bool:
    texts = (await resolver.txt(f"_mta-sts.{name}")).records
    # RFC 8461 §3.1: several are none.
    return sum(text.startswith("v=STSv1;") for text in texts) == 1


def findings_of(
    name: str, facts: DomainFacts, is_reachable: Callable[[IPAddress], bool]
) -> list[Finding]:
    """What follows from them; `is_reachable(ip)` says whether mail could go there from here."""
    exchanges = facts.exchanges
    if exchanges is None:
        assert facts.trouble is not None
        return [Finding(_TROUBLES[facts.trouble.trouble], str(facts.trouble))]
    if not exchanges.exists:
        return [Finding("dns.nxdomain", f"DNS knows no {name}")]
    if exchanges.is_null:
        return [Finding("dns.null_mx", f"{name} has the MX record 0 .")]
    findings = [_where_to(name, exchanges, is_reachable)]
    findings += [
        Finding("dns.mx_is_cname", f"MX {exchange.host} is an alias")
        for exchange in exchanges.exchanges
        if exchange.is_alias
    ]
    if facts.spf is not None and not facts.spf.is_present:
        findings.append(Finding("no_spf", f"{name} has no SPF record"))
    if facts.dmarc is not None and not facts.dmarc.is_present:
        findings.append(Finding("no_dmarc", f"neither {name} nor a parent has a DMARC record"))
    return findings


def _where_to(
    name: str, exchanges: Exchanges, is_reachable: Callable[[IPAddress], bool]
) -> Finding:
    found = exchanges.exchanges
    with_addresses = [exchange for exchange in found if exchange.addresses]
    is_within_reach = any(
        is_reachable(ip) for exchange in with_addresses for ip in exchange.addresses
    )
    trouble = next((exchange.trouble for exchange in found if exchange.trouble), None)
    if trouble is not None and not is_within_reach:
        return Finding(_TROUBLES[trouble.trouble], str(trouble))
    if not with_addresses:
        if any(exchange.is_ip for exchange in found):
            hosts = ", ".join(exchange.host for exchange in found)
            return Finding("dns.mx_is_ip", f"{name} has MX {hosts}")
        if exchanges.is_implicit:
            return Finding("dns.no_address", f"{name} has no MX, no A and no AAAA record")
        hosts = ", ".join(exchange.host for exchange in found)
        return Finding("dns.no_address", f"{name} has MX {hosts}, without an address")
    if not is_within_reach:
        ips = [f"{ip} ({describe(ip)})" for exchange in found for ip in exchange.addresses]
        return Finding("dns.mx_nonglobal", f"mail for {name} goes to {', '.join(ips)}")
    places = "; ".join(_place(exchange) for exchange in with_addresses)
    how = "no MX, so to itself" if exchanges.is_implicit else "by MX"
    return Finding("dns.ok", f"mail for {name} goes, {how}, to {places}")


def _place(exchange: Exchange) -> str:
    ips = ", ".join(str(ip) for ip in exchange.addresses)
    return f"{exchange.host} ({exchange.preference}: {ips})"


def host_findings(ip: IPAddress, names: ReverseNames, listings: Sequence[Listing]) -> list[Finding]:
    """What follows from a host's names and listings."""
    findings: list[Finding] = []
    if names.confirmation is Confirmation.NONE:
        findings.append(Finding("no_ptr", f"{ip} has no PTR record"))
    elif names.confirmation is Confirmation.FAIL:
        findings.append(
            Finding("fcrdns_mismatch", f"{ip} is {', '.join(names.names)}, not the other way")
        )
    findings += [
        Finding(
            "listed_dnsbl", f"{ip} is on {listing.zone} ({listing.code}) {listing.text}".strip()
        )
        for listing in listings
        if listing.listed is Listed.YES
    ]
    return findings
