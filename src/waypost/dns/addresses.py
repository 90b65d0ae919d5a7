"""The addresses of a name, in the order to try them in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import zip_longest

from waypost.dns.resolver import Resolver
from waypost.mail.address import IPAddress


async def addresses_of(resolver: Resolver, name: str) -> list[IPAddress]:
    """What a name has of either family; empty: nothing. Raises ResolverUnavailable."""
    answers = await asyncio.gather(resolver.ipv6(name), resolver.ipv4(name), return_exceptions=True)
    addresses: list[IPAddress] = []
    trouble: BaseException | None = None
    for answer in answers:
        if isinstance(answer, BaseException):
            trouble = trouble or answer
        else:
            addresses += answer.records
    if not addresses and trouble is not None:
        raise trouble
    return interleaved(addresses)


def interleaved(addresses: Iterable[IPAddress]) -> list[IPAddress]:
    """IPv6 and IPv4 in turn, IPv6 first (RFC 8305 §4): a dead family costs one try, not all."""
    known = list(addresses)
    six = [ip for ip in known if ip.version == 6]
    four = [ip for ip in known if ip.version == 4]
    return [ip for pair in zip_longest(six, four) for ip in pair if ip is not None]
