"""Targets as [[route]] writes them."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.dns.resolver import Resolver
from waypost.errors import NoWay
from waypost.mail.address import Address, AddressLiteral, Domain
from waypost.routing.hops import hosts_direct, hosts_to
from waypost.routing.targets import (
    HostPort,
    Target,
    UnixPath,
    parse_next_hop,
    parse_target,
    rejection,
)


@pytest.mark.parametrize(
    "text",
    [
        "mailbox:alerts",
        "mailbox:a:b",
        "smtp:[10.0.0.5]:25",
        "smtp:[10.0.0.5]",
        "smtp:mx.plant.example:25",
        "relay:isp",
        "list:ops",
        "direct:list",
        "smtp:[IPv6:fd00::5]:2525",
        "lmtp:/run/lmtp",
        "lmtp:[127.0.0.1]:24",
        "direct",
        "discard",
        "reject:5.7.1 not here",
        "reject",
        "publish:pump/set",
        "publish:plant/alarm#subject",
    ],
)
def test_a_target_is_printed_as_it_was_read(text: str) -> None:
    target = parse_target(text)
    assert parse_target(str(target)) == target
    assert str(target) == text


@pytest.mark.parametrize(
    ("text", "hop"),
    [
        ("smtp:[10.0.0.5]:2525", HostPort(AddressLiteral(ip_address("10.0.0.5")), 2525)),
        ("smtp:[10.0.0.5]", HostPort(AddressLiteral(ip_address("10.0.0.5")), 25)),
        ("smtp:[ipv6:FD00:0::5]:25", HostPort(AddressLiteral(ip_address("fd00::5")), 25)),
        ("smtp:mx.plant.example:2525", HostPort(Domain("mx.plant.example"), 2525)),
        ("smtp:10.0.0.5", HostPort(AddressLiteral(ip_address("10.0.0.5")), 25)),
        ("lmtp:[127.0.0.1]", HostPort(AddressLiteral(ip_address("127.0.0.1")), 24)),
        ("lmtp:/run/dovecot/lmtp", UnixPath("/run/dovecot/lmtp")),
    ],
)
def test_next_hop(text: str, hop: HostPort | UnixPath) -> None:
    assert parse_next_hop(parse_target(text)) == hop


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mail",
        "mailbox",
        "mailbox:",
        "MAILBOX:x",
        "direct:x",
        "direct:",
        "discard:",
        "smtp",
        "smtp:",
        "smtp:10.0.0.5:0",
        "smtp:a_b.example:25",
        "smtp:[10.0.0.5]:",
        "smtp:[10.0.0.5]:0",
        "smtp:[10.0.0.5]:65536",
        "smtp:[10.0.0.5]:x",
        "smtp:[10.0.0.5]:-1",
        "smtp:[10.0.0.5]:２５",
        "smtp:[10.0.0.5]:25 ",
        "smtp:[10.0.0.05]:25",
        "smtp:[fd00::5]:25",
        "smtp:[tag:x]:25",
        "smtp:/run/x",
        "lmtp:run/lmtp",
        "exec:rm",
    ],
)
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_target(text)


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("reject:5.7.1 not here", "550 5.7.1 not here"),
        ("reject:4.7.1 come later", "450 4.7.1 come later"),
        ("reject:5.1.10 x", "550 5.1.10 x"),
        ("reject:no", "550 5.7.1 no"),
        ("reject", "550 5.7.1 "),
        ("reject:2.0.0 fine", "550 5.7.1 2.0.0 fine"),
        ("reject:a\r\n250 b", "550 5.7.1 a 250 b"),
    ],
)
def test_rejection(text: str, start: str) -> None:
    reply = rejection(parse_target(text))
    assert str(reply).startswith(start)
    assert reply.wire.count(b"\r\n") == 1


@given(st.text(max_size=30))
def test_any_text_is_a_target_or_says_what_was_expected(text: str) -> None:
    for candidate in (text, f"smtp:{text}", f"lmtp:{text}", f"smtp:[{text}]:25", f"reject:{text}"):
        problem = ""
        target: Target | None = None
        try:
            target = parse_target(candidate)
        except ValueError as error:
            problem = str(error)
        assert (target is None) == bool(problem)
        if target is not None and target.kind == "reject":
            assert rejection(target).wire.count(b"\r\n") == 1


class NoDns:
    """A name service nobody may ask."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"asked for {name}")


def hosts(text: str) -> list[str]:
    found = asyncio.run(
        hosts_direct(Address.parse(text), 25, cast(Resolver, NoDns()), lambda host, ip: False)
    )
    return [str(host) for host in found]


def test_a_literal_is_exactly_one_hop() -> None:
    """RFC 5321 §5.1: no DNS, no MX."""
    assert hosts("ann@[IPv6:fd00:0::9]") == ["[IPv6:fd00::9]:25"]
    socket = asyncio.run(hosts_to(UnixPath("/run/x"), cast(Resolver, NoDns())))
    assert [str(host) for host in socket] == ["/run/x"]
    literal = parse_next_hop(parse_target("smtp:[10.0.0.5]"))
    [host] = asyncio.run(hosts_to(literal, cast(Resolver, NoDns())))
    assert host.hops[0].ip == ip_address("10.0.0.5")


@pytest.mark.parametrize("text", ["ann@[tag:x]", "ann@192.0.2.1"])
def test_what_is_neither_literal_nor_name_has_no_way(text: str) -> None:
    with pytest.raises(NoWay):
        hosts(text)
