"""Special-purpose addresses, from the IANA registries and the RFCs, first and last of each block.

The table here is written from the registries (RFC 6890, RFC 8190) and never from the code.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.mail.address import IPAddress
from waypost.net.special import describe, parse_packed, special_block, unwrap

# Block, and a word that must be in what the hub calls it.
SPECIAL: list[tuple[str, str]] = [
    ("0.0.0.0/8", "this network"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "shared"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", ""),
    ("192.0.2.0/24", "documentation"),
    ("192.31.196.0/24", ""),
    ("192.52.193.0/24", ""),
    ("192.88.99.0/24", ""),
    ("192.168.0.0/16", "private"),
    ("192.175.48.0/24", ""),
    ("198.18.0.0/15", "benchmarking"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", ""),
    ("255.255.255.255/32", "broadcast"),
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("64:ff9b:1::/48", ""),
    ("100::/64", ""),
    ("100:0:0:1::/64", ""),
    ("2001::/32", "Teredo"),
    ("2001:1::1/128", ""),
    ("2001:2::/48", "benchmarking"),
    ("2001:3::/32", ""),
    ("2001:4:112::/48", ""),
    ("2001:10::/28", "ORCHID"),
    ("2001:20::/28", "ORCHID"),
    ("2001:30::/28", ""),
    ("2001::/23", ""),
    ("2001:db8::/32", "documentation"),
    ("2620:4f:8000::/48", ""),
    ("3fff::/20", "documentation"),
    ("5f00::/16", ""),
    ("fc00::/7", "private"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("ff00::/8", "multicast"),
    # Everything of IPv6 that is not global unicast, 2000::/3 (RFC 4291 §2.4).
    ("::/3", ""),
    ("4000::/2", ""),
    ("8000::/1", ""),
]
NETWORKS = [ip_network(text) for text, _ in SPECIAL]

# Prefix of an IPv6 form that wraps an IPv4 address, and how it is written.
WRAPPERS = {
    "v4-mapped, RFC 4291 §2.5.5.2": lambda v4: IPv6Address(0xFFFF << 32 | int(v4)),
    "v4-compatible, RFC 4291 §2.5.5.1": lambda v4: IPv6Address(int(v4)),
    "v4-translated, RFC 2765 §2.1": lambda v4: IPv6Address(0xFFFF << 48 | int(v4)),
    "NAT64, RFC 6052 §2.1": lambda v4: IPv6Address(0x64FF9B << 96 | int(v4)),
    "6to4, RFC 3056 §2": lambda v4: IPv6Address(0x2002 << 112 | int(v4) << 80),
    "6to4 with a host": lambda v4: IPv6Address(0x2002 << 112 | int(v4) << 80 | 0xABCD),
}
INNER = [
    "127.0.0.1",
    "10.0.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "224.0.0.1",
    "8.8.8.8",
    "0.0.0.2",
]


def edges(text: str) -> list[IPAddress]:
    network = ip_network(text)
    return [network[0], network[-1]]


def neighbours(text: str) -> list[IPAddress]:
    network = ip_network(text)
    kind = type(network[0])
    numbers = (int(network[0]) - 1, int(network[-1]) + 1)
    return [kind(number) for number in numbers if 0 <= number < 1 << network[0].max_prefixlen]


def is_wrapper(ip: IPAddress) -> bool:
    return ip.version == 6 and unwrap(ip) != ip


@pytest.mark.parametrize(("text", "word"), SPECIAL)
def test_first_and_last_of_a_block_are_special(text: str, word: str) -> None:
    network = ip_network(text)
    for ip in (*edges(text), network[network.num_addresses // 2]):
        if is_wrapper(ip):
            continue  # judged by the address inside, below
        block = special_block(ip)
        assert block is not None, ip
        # A block inside a block goes by its own name.
        is_plain = all(
            ip not in other or other.supernet_of(network)
            for other in NETWORKS
            if (other.version == network.version)
        )
        if is_plain:
            assert word in block.kind


@pytest.mark.parametrize("text", [text for text, _ in SPECIAL])
def test_neighbours_of_a_block_are_global_unless_another_has_them(text: str) -> None:
    for ip in neighbours(text):
        if is_wrapper(ip):
            continue
        is_special = any(ip.version == other.version and ip in other for other in NETWORKS)
        assert (special_block(ip) is not None) == is_special, ip


@pytest.mark.parametrize(
    "text",
    [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.1",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2000::1",
        "2001:200::1",
        "2001:4860:4860::8888",
        "2606:4700:4700::1111",
        "2a00::1",
        "3ffe::1",
    ],
)
def test_ordinary_addresses_are_global(text: str) -> None:
    assert special_block(ip_address(text)) is None
    assert describe(ip_address(text)) == "global"


@pytest.mark.parametrize("form", WRAPPERS)
@pytest.mark.parametrize("inner", INNER)
def test_wrapped_addresses_are_judged_by_what_they_wrap(form: str, inner: str) -> None:
    v4 = IPv4Address(inner)
    wrapped = WRAPPERS[form](v4)
    assert unwrap(wrapped) == v4
    assert special_block(wrapped) == special_block(v4)


@given(st.ip_addresses(v=4), st.sampled_from(sorted(WRAPPERS)))
def test_any_wrapped_address_is_unwrapped(v4: IPv4Address, form: str) -> None:
    wrapped = WRAPPERS[form](v4)
    if int(wrapped) > 1:  # "::" and "::1" are themselves
        assert unwrap(wrapped) == v4


def test_unspecified_and_loopback_wrap_nothing() -> None:
    assert unwrap(IPv6Address("::")) == IPv6Address("::")
    assert unwrap(IPv6Address("::1")) == IPv6Address("::1")


@given(st.ip_addresses())
def test_any_address_is_judged(ip: IPAddress) -> None:
    inner = unwrap(ip)
    is_special = any(inner.version == other.version and inner in other for other in NETWORKS)
    assert (special_block(ip) is not None) == is_special
    assert describe(ip)
    assert parse_packed(ip.packed) == ip
