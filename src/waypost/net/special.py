"""Our own table of special-purpose address blocks, and of IPv6 forms that wrap an IPv4 address.

`ipaddress.is_global` is not asked: it calls multicast, ::10.0.0.1 and 64:ff9b::10.0.0.1 global,
and has changed between patch releases (CVE-2024-4032). Sources: the IANA special-purpose
registries for IPv4 and IPv6 (RFC 6890, RFC 8190) and the RFC named at each row.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import NamedTuple

from waypost.mail.address import IPAddress

IPNetwork = IPv4Network | IPv6Network


class Block(NamedTuple):
    """One special-purpose block."""

    network: IPNetwork
    kind: str  # what it is, in one or two words
    source: str


def _block(text: str, kind: str, source: str) -> Block:
    return Block(ip_network(text), kind, source)


BLOCKS: tuple[Block, ...] = (
    _block("0.0.0.0/8", "this network", "RFC 791 §3.2"),
    _block("10.0.0.0/8", "private", "RFC 1918"),
    _block("100.64.0.0/10", "shared (carrier NAT)", "RFC 6598"),
    _block("127.0.0.0/8", "loopback", "RFC 1122 §3.2.1.3"),
    _block("169.254.0.0/16", "link-local", "RFC 3927"),
    _block("172.16.0.0/12", "private", "RFC 1918"),
    _block("192.0.0.0/24", "protocol assignments", "RFC 6890"),
    _block("192.0.2.0/24", "documentation", "RFC 5737"),
    _block("192.31.196.0/24", "AS112", "RFC 7535"),
    _block("192.52.193.0/24", "AMT", "RFC 7450"),
    _block("192.88.99.0/24", "6to4 relay (deprecated)", "RFC 7526"),
    _block("192.168.0.0/16", "private", "RFC 1918"),
    _block("192.175.48.0/24", "AS112", "RFC 7534"),
    _block("198.18.0.0/15", "benchmarking", "RFC 2544"),
    _block("198.51.100.0/24", "documentation", "RFC 5737"),
    _block("203.0.113.0/24", "documentation", "RFC 5737"),
    _block("224.0.0.0/4", "multicast", "RFC 1112"),
    _block("255.255.255.255/32", "broadcast", "RFC 919"),
    _block("240.0.0.0/4", "reserved", "RFC 1112"),
    _block("::/128", "unspecified", "RFC 4291"),
    _block("::1/128", "loopback", "RFC 4291"),
    _block("64:ff9b:1::/48", "local-use translation", "RFC 8215"),
    _block("100::/64", "discard-only", "RFC 6666"),
    _block("100:0:0:1::/64", "dummy prefix", "RFC 9780"),
    _block("2001::/32", "Teredo", "RFC 4380"),
    _block("2001:2::/48", "benchmarking", "RFC 5180"),
    _block("2001:10::/28", "ORCHID (deprecated)", "RFC 4843"),
    _block("2001:20::/28", "ORCHIDv2", "RFC 7343"),
    _block("2001:30::/28", "drone remote ID", "RFC 9374"),
    _block("2001:db8::/32", "documentation", "RFC 3849"),
    _block("2001::/23", "protocol assignments", "RFC 2928"),
    _block("2620:4f:8000::/48", "AS112", "RFC 7534"),
    _block("3fff::/20", "documentation", "RFC 9637"),
    _block("5f00::/16", "segment routing", "RFC 9602"),
    _block("fc00::/7", "private (unique-local)", "RFC 4193"),
    _block("fe80::/10", "link-local", "RFC 4291"),
    _block("fec0::/10", "site-local (deprecated)", "RFC 3879"),
    _block("ff00::/8", "multicast", "RFC 4291"),
    # IPv6 space that is not global unicast (2000::/3) is unassigned or one of the above.
    _block("::/3", "unassigned", "RFC 4291"),
    _block("4000::/2", "unassigned", "RFC 4291"),
    _block("8000::/1", "unassigned", "RFC 4291"),
)

# IPv6 forms that stand for an IPv4 host: prefix, and how far the IPv4 address is from the right.
_WRAPPERS: tuple[tuple[IPv6Network, int], ...] = (
    (IPv6Network("::ffff:0:0/96"), 0),  # v4-mapped, RFC 4291 §2.5.5.2
    (IPv6Network("::ffff:0:0:0/96"), 0),  # v4-translated, RFC 2765 §2.1
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64, RFC 6052 §2.1
    (IPv6Network("2002::/16"), 80),  # 6to4, RFC 3056
    (IPv6Network("::/96"), 0),  # v4-compatible, RFC 4291 §2.5.5.1
)


def unwrap(ip: IPAddress) -> IPAddress:
    """The IPv4 address a wrapping IPv6 address stands for; any other address, itself."""
    if isinstance(ip, IPv4Address) or int(ip) <= 1:
        return ip
    for network, shift in _WRAPPERS:
        if ip in network:
            return IPv4Address((int(ip) >> shift) & 0xFFFF_FFFF)
    return ip


@lru_cache(maxsize=4096)
def special_block(ip: IPAddress) -> Block | None:
    """The first block of the table that holds `ip`, wrappers judged by what they wrap.

    None: an ordinary, globally routed unicast address.
    """
    inner = unwrap(ip)
    for block in BLOCKS:
        if inner.version == block.network.version and inner in block.network:
            return block
    return None


def describe(ip: IPAddress) -> str:
    """What kind of address this is, in words."""
    block = special_block(ip)
    return "global" if block is None else f"{block.kind}, {block.source}"


def parse_packed(packed: bytes) -> IPAddress:
    """The address of 4 or 16 octets in network order."""
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)
