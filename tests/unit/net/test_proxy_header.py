"""PROXY headers, version 1 and 2: taken to the octet, in any pieces, and refused when odd."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest

from waypost.net.proxy_header import BadProxyHeader, ProxyHeader, ProxyHeaderReader

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V4 = ProxyHeader(ip_address("203.0.113.7"), ip_address("198.51.100.1"))
V6 = ProxyHeader(ip_address("2001:db8::7"), ip_address("2001:db8::1"))
NOBODY = ProxyHeader(None, None)


def block(command: int, family: int, octets: bytes) -> bytes:
    return SIGNATURE + bytes([command, family]) + len(octets).to_bytes(2, "big") + octets


def addresses(family: socket.AddressFamily, header: ProxyHeader) -> bytes:
    packed = [socket.inet_pton(family, str(ip)) for ip in header]
    return b"".join(packed) + bytes([0x9C, 0x40, 0, 25])


TCP4 = addresses(socket.AF_INET, V4)
TCP6 = addresses(socket.AF_INET6, V6)
TLV = b"\x04\x00\x05hello" + b"\x20\x00\x03abc"

GOOD = {
    "v1-tcp4": (b"PROXY TCP4 203.0.113.7 198.51.100.1 40000 25\r\n", V4),
    "v1-tcp6": (b"PROXY TCP6 2001:db8::7 2001:DB8:0::1 40000 25\r\n", V6),
    "v1-mapped": (b"PROXY TCP6 ::ffff:203.0.113.7 ::ffff:198.51.100.1 1 25\r\n", V4),
    "v1-unknown": (b"PROXY UNKNOWN\r\n", NOBODY),
    "v1-unknown-and-more": (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", NOBODY),
    "v1-longest": (b"PROXY UNKNOWN ".ljust(105, b"f") + b"\r\n", NOBODY),
    "v2-tcp4": (block(0x21, 0x11, TCP4), V4),
    "v2-tcp6": (block(0x21, 0x21, TCP6), V6),
    "v2-tlvs": (block(0x21, 0x11, TCP4 + TLV), V4),
    "v2-long-tlvs": (block(0x21, 0x21, TCP6 + bytes(4_000)), V6),
    "v2-local": (block(0x20, 0x00, b""), NOBODY),
    "v2-local-with-addresses": (block(0x20, 0x11, TCP4), NOBODY),
    "v2-unspecified": (block(0x21, 0x00, b""), NOBODY),
    "v2-unix": (block(0x21, 0x31, bytes(216)), NOBODY),
}

BAD = {
    "smtp": b"EHLO client.example\r\n",
    "tls": b"\x16\x03\x01",
    "v1-lower": b"proxy TCP4 203.0.113.7 198.51.100.1 1 25\r\n",
    "v1-bare-lf": b"PROXY TCP4 203.0.113.7 198.51.100.1 1 25\n",
    "v1-endless": b"PROXY UNKNOWN " + b"x" * 94,
    "v1-long": b"PROXY UNKNOWN ".ljust(106, b"f") + b"\r\n",
    "v1-words": b"PROXY TCP4 203.0.113.7 198.51.100.1 1\r\n",
    "v1-blanks": b"PROXY  TCP4 203.0.113.7 198.51.100.1 1 25\r\n",
    "v1-family": b"PROXY UDP4 203.0.113.7 198.51.100.1 1 25\r\n",
    "v1-other-family": b"PROXY TCP4 2001:db8::7 2001:db8::1 1 25\r\n",
    "v1-octal": b"PROXY TCP4 203.0.113.007 198.51.100.1 1 25\r\n",
    "v1-name": b"PROXY TCP4 localhost 198.51.100.1 1 25\r\n",
    "v1-zone": b"PROXY TCP6 fe80::1%eth0 fe80::2 1 25\r\n",
    "v1-not-ascii": b"PROXY TCP4 203.0.113.\xff 198.51.100.1 1 25\r\n",
    "v1-port": b"PROXY TCP4 203.0.113.7 198.51.100.1 65536 25\r\n",
    "v1-sign": b"PROXY TCP4 203.0.113.7 198.51.100.1 +1 25\r\n",
    "v2-version": block(0x11, 0x11, TCP4),
    "v2-command": block(0x22, 0x11, TCP4),
    "v2-short": block(0x21, 0x11, TCP4[:11]),
    "v2-short-6": block(0x21, 0x21, TCP4),
    "v2-udp": block(0x21, 0x12, TCP4),
    "v2-huge": block(0x21, 0x11, bytes(4_097)),
}

BEHIND = (b"", b"EHLO client.example\r\n", b"\x16\x03\x01\x02\x00")


@pytest.mark.parametrize(("octets", "header"), GOOD.values(), ids=GOOD)
@pytest.mark.parametrize("behind", BEHIND)
def test_it_is_taken_to_the_octet(octets: bytes, header: ProxyHeader, behind: bytes) -> None:
    reader = ProxyHeaderReader()
    assert reader.receive(octets + behind) == len(octets)
    assert reader.header == header


@pytest.mark.parametrize(("octets", "header"), GOOD.values(), ids=GOOD)
def test_it_may_come_in_any_pieces(octets: bytes, header: ProxyHeader) -> None:
    for cut in range(1, len(octets)):
        reader = ProxyHeaderReader()
        assert reader.receive(octets[:cut]) == cut
        assert reader.header is None
        assert reader.receive(octets[cut:] + b"EHLO x\r\n") == len(octets) - cut
        assert reader.header == header
    reader = ProxyHeaderReader()
    for octet in octets:
        assert reader.header is None
        assert reader.receive(bytes([octet])) == 1
    assert reader.header == header


@pytest.mark.parametrize("octets", BAD.values(), ids=BAD)
def test_anything_else_is_refused(octets: bytes) -> None:
    with pytest.raises(BadProxyHeader):
        ProxyHeaderReader().receive(octets)
    reader = ProxyHeaderReader()
    with pytest.raises(BadProxyHeader):
        any(reader.receive(bytes([octet])) != 1 for octet in octets)
    assert reader.header is None
