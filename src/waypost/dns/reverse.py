"""Names of an address, and whether they lead back to it (FCrDNS; "iprev" of RFC 8601 §2.7.3)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum

from waypost.dns.resolver import Resolver, ResolverUnavailable
from waypost.mail.address import IPAddress

# Names beyond these are not looked up: an address may have thousands.
MAX_NAMES = 10


class Confirmation(StrEnum):
    """Whether a name of an address leads back to it."""

    PASS = "pass"  # noqa: S105 - RFC 8601's word
    FAIL = "fail"
    NONE = "none"  # it has no name
    UNKNOWN = "unknown"  # the name service was in trouble


@dataclass(frozen=True, slots=True)
class ReverseNames:
    """What the name service says of an address."""

    names: tuple[str, ...]
    confirmed: tuple[str, ...]  # those that lead back
    confirmation: Confirmation


async def reverse_names(resolver: Resolver, ip: IPAddress) -> ReverseNames:
    """Look up an address and the names it has."""
    try:
        answer = await resolver.ptr(ip)
    except ResolverUnavailable:
        return ReverseNames((), (), Confirmation.UNKNOWN)
    names = tuple(name for name in answer.records if name)[:MAX_NAMES]  # the root is no name
    if not names:
        return ReverseNames((), (), Confirmation.NONE)
    forward = resolver.ipv4 if ip.version == 4 else resolver.ipv6
    answers = await asyncio.gather(*(forward(name) for name in names), return_exceptions=True)
    confirmed = []
    in_trouble = False
    for name, found in zip(names, answers, strict=True):
        if isinstance(found, ResolverUnavailable):
            in_trouble = True
        elif isinstance(found, BaseException):
            raise found
        elif ip in found.records:
            confirmed.append(name)
    if confirmed:
        return ReverseNames(names, tuple(confirmed), Confirmation.PASS)
    return ReverseNames(names, (), Confirmation.UNKNOWN if in_trouble else Confirmation.FAIL)
