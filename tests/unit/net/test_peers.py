"""Addresses of connections are values like any others."""

from __future__ import annotations

import copy
import pickle
from ipaddress import ip_address

import pytest

from waypost.net.peers import ip_of


@pytest.mark.parametrize(
    ("host", "value"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_an_address_of_a_connection_is_found_among_others_and_finds_them(
    host: str, value: str
) -> None:
    ip, other = ip_of(host), ip_address(value)
    assert ip == other
    assert other == ip
    assert hash(ip) == hash(other)
    assert {other: "found"}[ip] == "found"
    assert {ip: "found"}[other] == "found"
    assert ip in frozenset({other})
    assert (str(ip), ip.version, ip.is_private) == (str(other), other.version, other.is_private)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_it_can_be_copied_and_counted_on(host: str) -> None:
    ip = ip_of(host)
    assert copy.copy(ip) == ip == pickle.loads(pickle.dumps(ip))
    assert ip + 1 == ip_address(host) + 1
    assert hash(ip + 1) == hash(ip_address(host) + 1)
