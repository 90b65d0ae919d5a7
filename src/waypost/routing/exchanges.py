"""The hosts that take mail for a name (RFC 5321 §5.1): MX, implicit MX, null MX.

What a host is reached by is looked up here; whether it may be connected to is the gate's to say.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from ipaddress import ip_address
from itertools import islice

from waypost.dns.addresses import interleaved
from waypost.dns.resolver import Answer, MailExchange, Resolver, ResolverUnavailable
from waypost.mail.address import IPAddress

# Exchanges beyond these are not looked at: no honest domain has so many, and each costs questions.
MAX_EXCHANGES = 20
# Nor at more addresses of one host and family: whoever asks about each would ask for ever.
MAX_ADDRESSES = 20


@dataclass(frozen=True, slots=True)
class Exchange:
    """One host that takes mail for a name."""

    preference: int
    host: str
    addresses: tuple[IPAddress, ...]  # in the order to try them
    trouble: ResolverUnavailable | None = None  # those of a family could not be asked for now
    is_alias: bool = False  # a CNAME, which RFC 2181 §10.3 forbids
    is_ip: bool = False  # the record holds an address where a name belongs


@dataclass(frozen=True, slots=True)
class Exchanges:
    """Where mail for a name goes, the most preferred first."""

    name: str
    exists: bool  # False: there is no such name
    exchanges: tuple[Exchange, ...] = ()
    is_implicit: bool = False  # the name has no MX, so it is its own (RFC 5321 §5.1)
    is_null: bool = False  # it says that it takes no mail (RFC 7505)
    is_secure: bool = False  # DNSSEC, as the resolver says, for the MX answer
    ttl_s: int = 0


async def exchanges_of(resolver: Resolver, name: str) -> Exchanges:
    """Look up a name. Raises ResolverUnavailable when its MX records cannot be had now."""
    answer = await resolver.mx(name)
    if not answer.exists:
        return Exchanges(name, False, is_secure=answer.is_secure, ttl_s=answer.ttl_s)
    if not answer.records:
        itself = replace(await _exchange(resolver, 0, name), is_alias=False)
        return Exchanges(
            name, True, (itself,), is_implicit=True, is_secure=answer.is_secure, ttl_s=answer.ttl_s
        )
    hosts: dict[str, MailExchange] = {}
    for record in sorted(answer.records):
        if record.host:
            hosts.setdefault(record.host, record)  # a host named twice is tried once
    if not hosts:
        return Exchanges(name, True, is_null=True, is_secure=answer.is_secure, ttl_s=answer.ttl_s)
    found = await asyncio.gather(
        *(
            _exchange(resolver, record.preference, record.host)
            for record in islice(hosts.values(), MAX_EXCHANGES)
        )
    )
    return Exchanges(name, True, tuple(found), is_secure=answer.is_secure, ttl_s=answer.ttl_s)


async def _exchange(resolver: Resolver, preference: int, host: str) -> Exchange:
    if _is_ip(host):
        return Exchange(preference, host, (), is_ip=True)
    answers = await asyncio.gather(resolver.ipv6(host), resolver.ipv4(host), return_exceptions=True)
    addresses: dict[IPAddress, None] = {}  # each once, in order
    trouble: ResolverUnavailable | None = None
    is_alias = False
    for answer in answers:
        if isinstance(answer, ResolverUnavailable):
            trouble = answer
        elif isinstance(answer, BaseException):
            raise answer
        else:
            addresses |= dict.fromkeys(answer.records[:MAX_ADDRESSES])
            is_alias = is_alias or _is_alias(answer, host)
    return Exchange(preference, host, tuple(interleaved(addresses)), trouble, is_alias)


def _is_alias(answer: Answer[IPAddress], host: str) -> bool:
    return bool(answer.records) and answer.canonical != host


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
