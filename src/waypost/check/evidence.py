"""What was found, as JSON: the objects of docs/reference/verdicts.md."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from waypost.check.domain import DomainFacts
from waypost.dns.blocklist import Listing
from waypost.dns.reverse import ReverseNames
from waypost.mail.address import Address, AddressLiteral, Domain, GeneralLiteral, IPAddress
from waypost.mail.header_address import Mailbox
from waypost.mail.matching import LIKELY_SAME, PROVIDERS, key
from waypost.net.special import special_block


def address_json(mailbox: Mailbox) -> dict[str, Any]:
    """The "address" object."""
    address, levels = mailbox.address, mailbox.levels
    normalized = None if address is None else str(address)
    tag = mailbox.local_part.partition("+")[2]
    return {
        "display_name": mailbox.display_name,
        "group": None,  # groups stand in lists; a check is of one mailbox
        "local": mailbox.local_part,
        "local_quoted": normalized is not None and normalized.startswith('"'),
        "domain": mailbox.domain if address is None else str(address.domain),
        "normalized": normalized,
        "ascii": normalized if address is not None and address.is_ascii else None,
        "key": None if address is None else key(address, LIKELY_SAME),
        "tag": tag or None,
        "comments": list(mailbox.comments),
        "smtputf8": address is not None and not address.is_ascii,
        "length": {
            "local": len(mailbox.local_part.encode(errors="surrogatepass")),
            "mailbox": None if normalized is None else len(normalized.encode()),
        },
        "levels": {
            "rfc5321": levels.rfc5321,
            "rfc5322": levels.rfc5322,
            "rfc6531": levels.rfc6531,
            "obsolete": levels.obsolete,
        },
    }


def literal_json(mailbox: Mailbox, names: ReverseNames | None) -> dict[str, Any] | None:
    """The "literal" object; None: the domain is a name."""
    if mailbox.address is None:
        return None
    domain = mailbox.address.domain
    if isinstance(domain, GeneralLiteral):
        return {"kind": "general", "ip": None, "class": None, "global": False}
    if not isinstance(domain, AddressLiteral):
        return None
    block = special_block(domain.ip)
    return {
        "kind": f"ipv{domain.ip.version}",
        "ip": str(domain.ip),
        "class": "global" if block is None else block.kind,
        "global": block is None,
        "v4_mapped": str(domain.ip) if domain.ip.version == 4 and ":" in mailbox.domain else None,
        "ptr": None if names is None else list(names.names),
        "fcrdns": "unknown" if names is None else names.confirmation.value,
    }


def class_json(address: Address, codes: Collection[str]) -> dict[str, Any]:
    """The "class" object; `codes` are those of the findings."""
    name = str(address.domain) if isinstance(address.domain, Domain) else ""
    provider = PROVIDERS.get(name)
    policy = None if provider is None else provider.policy
    return {
        "role": "role" in codes,
        "disposable": "disposable" in codes,
        "free": "free" in codes,
        "provider": None if provider is None else provider.same_as or name,
        # Only its host knows what a local part means (RFC 5321 §2.3.11), unless it has told.
        "case_rule": "fold" if policy is not None and policy.folds_case else "preserve",
        "dots_rule": "ignored" if policy is not None and policy.ignores_dots else "significant",
        "subaddress": "unknown"
        if policy is None
        else {"+": "plus", "-": "minus", "": "none"}[policy.subaddress],
    }


def dns_json(facts: DomainFacts, names: Mapping[IPAddress, ReverseNames]) -> dict[str, Any]:
    """The "dns" object."""
    exchanges = facts.exchanges
    if exchanges is None:
        assert facts.trouble is not None
        return {"status": facts.trouble.trouble.value, "dnssec": facts.dnssec.value}
    return {
        "status": "ok" if exchanges.exists else "nxdomain",
        "mx": [
            {
                "pref": exchange.preference,
                "host": exchange.host,
                "cname": exchange.is_alias,
                "addresses": [_host_json(ip, names.get(ip)) for ip in exchange.addresses],
            }
            for exchange in exchanges.exchanges
            if not exchanges.is_implicit
        ],
        "implicit_mx": [
            _host_json(ip, names.get(ip))
            for exchange in exchanges.exchanges
            for ip in exchange.addresses
        ]
        if exchanges.is_implicit
        else None,
        "null_mx": exchanges.is_null,
        "dnssec": facts.dnssec.value,
        "ttl": exchanges.ttl_s,
    }


def _host_json(ip: IPAddress, names: ReverseNames | None) -> dict[str, Any]:
    block = special_block(ip)
    return {
        "ip": str(ip),
        "class": "global" if block is None else block.kind,
        "ptr": None if names is None else list(names.names),
        "fcrdns": None if names is None else names.confirmation.value,
    }


def auth_json(facts: DomainFacts) -> dict[str, Any]:
    """The "auth" object."""
    spf, dmarc = facts.spf, facts.dmarc
    return {
        "spf": None
        if spf is None
        else {"present": spf.is_present, "all": spf.all, "valid": spf.is_valid},
        "dmarc": None
        if dmarc is None
        else {"present": dmarc.is_present, "p": dmarc.policy, "at": dmarc.at},
        # The policy itself lies on a web server, which is not asked.
        "mta_sts": "none" if facts.has_mta_sts is False else "unknown",
    }


def listing_json(listing: Listing) -> dict[str, Any]:
    """An entry of "dnsbl"."""
    return {
        "zone": listing.zone,
        "ip": str(listing.ip),
        "listed": listing.listed.value,
        "code": listing.code,
        "text": listing.text,
    }
