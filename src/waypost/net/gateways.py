"""Gateways that mask clients: the default gateways of a container.

An engine that publishes a container's ports may do so under the address of the container's
gateway: then everybody outside comes from there, and nobody can be told from another.
"""

from __future__ import annotations

import sys
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from waypost.mail.address import IPAddress, as_value

# Docker and Podman put these into each container. Others (LXC, a virtual machine) give the host
# an address on a network of its own, whose router is a host like any other.
_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))
_ROUTES_V4 = Path("/proc/net/route")
_ROUTES_V6 = Path("/proc/net/ipv6_route")
_RTF_GATEWAY = 0x2


def masking_gateways() -> frozenset[IPAddress]:
    """The default gateways if this is a container, else none."""
    if not any(mark.exists() for mark in _MARKS):
        return frozenset()
    return frozenset(
        read_gateways_v4(_read(_ROUTES_V4)) + read_gateways_v6(_read(_ROUTES_V6)),
    )


def read_gateways_v4(table: str) -> list[IPAddress]:
    """The default gateways of /proc/net/route: numbers as the host keeps them, in hex."""
    found: list[IPAddress] = []
    for line in table.splitlines()[1:]:
        _, destination, gateway, flags, *rest = line.split()
        if int(destination, 16) == 0 and int(rest[3], 16) == 0 and int(flags, 16) & _RTF_GATEWAY:
            found.append(IPv4Address(int(gateway, 16).to_bytes(4, sys.byteorder)))
    return found


def read_gateways_v6(table: str) -> list[IPAddress]:
    """The default gateways of /proc/net/ipv6_route."""
    found: list[IPAddress] = []
    for line in table.splitlines():
        destination, length, _, _, gateway, *_, flags, _ = line.split()
        if int(destination, 16) == int(length, 16) == 0 and int(flags, 16) & _RTF_GATEWAY:
            found.append(as_value(IPv6Address(bytes.fromhex(gateway))))
    return found


def _read(table: Path) -> str:
    # A kernel without IPv6 has no such table.
    return table.read_text("ascii") if table.exists() else ""
