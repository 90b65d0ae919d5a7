"""Which addresses and names a public certificate is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address
from pathlib import Path

from waypost.acme.settings import AUTO, AcmeSettings
from waypost.mail.address import IPAddress
from waypost.net.special import special_block, unwrap
from waypost.tls.authority import Subjects

# Linux lists its IPv6 addresses here, each with the flags of linux/if_addr.h.
_INET6 = Path("/proc/net/if_inet6")
_IFA_F_TEMPORARY = 0x01

# Names under these stand for nobody on the Internet (RFC 6761, 6762, 8375, 9476).
_PRIVATE_NAMES = (
    *("alt", "arpa", "example", "home", "internal", "intranet", "invalid", "lan"),
    *("local", "localdomain", "localhost", "onion", "private", "test"),
)


def wanted_subjects(
    settings: AcmeSettings, own: Iterable[IPAddress], hostname: str | None
) -> Subjects:
    """What these settings ask for, by the addresses this host has now.

    Reads what the kernel says of them, which does not block.
    """
    ips: set[IPAddress] = set()
    names: set[str] = set()
    for text in settings.identifiers:
        if text == AUTO:
            passing = temporary_addresses()
            ips.update(ip for ip in own if is_public(ip) and ip not in passing)
            if hostname is not None and is_public_name(hostname):
                names.add(hostname)
            continue
        try:
            ips.add(ip_address(text))
        except ValueError:
            names.add(text)
    return Subjects(frozenset(ips), frozenset(names))


def is_public(ip: IPAddress) -> bool:
    """True for an address a public server may certify: global, and itself."""
    return special_block(ip) is None and unwrap(ip) == ip


def is_public_name(name: str) -> bool:
    """True for a name that may exist in the public name service."""
    labels = name.split(".")
    return len(labels) > 1 and labels[-1] not in _PRIVATE_NAMES


def temporary_addresses(table: Path = _INET6) -> frozenset[IPAddress]:
    """Our IPv6 addresses that change by themselves every day (RFC 8981)."""
    try:
        lines = table.read_text("ascii").splitlines()
    except FileNotFoundError:  # another system, or no IPv6
        return frozenset()
    found: set[IPAddress] = set()
    for line in lines:
        address, _, _, _, flags, _ = line.split()
        if int(flags, 16) & _IFA_F_TEMPORARY:
            found.add(IPv6Address(int(address, 16)))
    return frozenset(found)
