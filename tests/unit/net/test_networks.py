"""Sets of networks by words and CIDRs."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from waypost.net.networks import Networks

DEFAULT = Networks(("loopback", "private"))


@pytest.mark.parametrize(
    ("text", "is_trusted"),
    [
        # Loopback, RFC 1918, unique-local, link-local IPv6: and one beside each.
        ("127.0.0.1", True),
        ("127.255.255.255", True),
        ("128.0.0.0", False),
        ("126.255.255.255", False),
        ("10.0.0.0", True),
        ("10.255.255.255", True),
        ("11.0.0.0", False),
        ("172.16.0.0", True),
        ("172.31.255.255", True),
        ("172.15.255.255", False),
        ("172.32.0.0", False),
        ("192.168.0.0", True),
        ("192.168.255.255", True),
        ("192.169.0.0", False),
        ("169.254.1.1", False),
        ("100.64.0.1", False),
        ("8.8.8.8", False),
        ("::1", True),
        ("::2", False),
        ("fc00::", True),
        ("fdff::1", True),
        ("fbff::1", False),
        ("fe00::", False),
        ("fe80::1", True),
        ("febf::1", True),
        ("fec0::1", False),
        ("2001:db8::1", False),
        # A v4-mapped peer is the IPv4 host.
        ("::ffff:10.0.0.1", True),
        ("::ffff:8.8.8.8", False),
        # Other wrappers are not.
        ("::10.0.0.1", False),
        ("64:ff9b::10.0.0.1", False),
        ("2002:a00:1::1", False),
    ],
)
def test_default_trust(text: str, is_trusted: bool) -> None:
    for _ in range(2):  # the second answer comes from memory
        assert (ip_address(text) in DEFAULT) is is_trusted


def test_words_and_cidrs() -> None:
    assert ip_address("8.8.8.8") in Networks(("any",))
    assert ip_address("2001:db8::1") in Networks(("any",))
    assert ip_address("203.0.113.9") in Networks(("203.0.113.0/24",))
    assert ip_address("203.0.113.9") in Networks(("203.0.113.9",))
    assert ip_address("203.0.114.9") not in Networks(("203.0.113.0/24",))
    assert ip_address("127.0.0.1") not in Networks(())


@pytest.mark.parametrize(
    "word", ["lan", "10.0.0.1/8", "10.0.0.0/33", "300.0.0.0/8", "", "2001:db8::/129", "10.0.0"]
)
def test_what_is_no_network_is_named(word: str) -> None:
    with pytest.raises(ValueError, match=r"is no network"):
        Networks(("loopback", word))
