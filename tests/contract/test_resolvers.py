"""The Resolver seam (dns/resolver.py): the same zones in memory and served by a real NSD."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from tests.support.dns_servers import Nsd
from tests.support.static_resolver import StaticResolver
from waypost.dns.caching import CachingResolver
from waypost.dns.resolver import (
    Answer,
    MailExchange,
    Resolver,
    ResolverUnavailable,
    TlsaRecord,
    Trouble,
)
from waypost.mail.address import IPAddress

V4 = ip_address("192.0.2.5")
V6 = ip_address("2001:db8::5")
NAMELESS = ip_address("192.0.2.6")
LONG_TEXT = "v=spf1 " + " ".join(f"ip4:192.0.2.{number}" for number in range(100)) + " -all"
LONG_LABEL = "x" * 63
# 253 characters, so 255 octets on the wire: the longest there is.
LONGEST = ".".join([LONG_LABEL] * 3 + ["x" * 50, "plant.test"])

# As in master files; TXT records are written as their text.
RECORDS: dict[tuple[str, str], list[str]] = {
    ("plant.test", "MX"): ["20 mx2.plant.test.", "0 mx.plant.test.", "65535 MX3.Plant.Test."],
    ("plant.test", "TXT"): [LONG_TEXT, "a b", ""],
    ("mx.plant.test", "A"): ["192.0.2.5", "192.0.2.7"],
    ("mx.plant.test", "AAAA"): ["2001:db8::5"],
    ("only4.plant.test", "A"): ["192.0.2.5"],
    ("a.empty.plant.test", "A"): ["192.0.2.5"],
    ("mapped.plant.test", "AAAA"): ["::ffff:192.0.2.5"],
    ("null.plant.test", "MX"): ["0 ."],
    ("alias.plant.test", "CNAME"): ["alias2.plant.test."],
    ("alias2.plant.test", "CNAME"): ["mx.plant.test."],
    ("nowhere.plant.test", "CNAME"): ["missing.plant.test."],
    ("loop.plant.test", "CNAME"): ["pool.plant.test."],
    ("pool.plant.test", "CNAME"): ["loop.plant.test."],
    ("_dmarc.plant.test", "TXT"): ["v=DMARC1; p=reject"],
    ("under_score.plant.test", "A"): ["192.0.2.5"],
    ("_25._tcp.mx.plant.test", "TLSA"): ["3 1 1 00FF" + "ab" * 30, "2 0 0 3000"],
    (LONGEST, "A"): ["192.0.2.5"],
    ("odd.plant.test", "MX"): [
        r"10 a\032b.plant.test.",
        r"20 \027[31m.plant.test.",
        r"30 \255.plant.test.",
        r"40 dot\.in.label.plant.test.",
        r"50 dot\..",
        r"60 back\\slash.plant.test.",
        r"70 *.plant.test.",
        "80 192.0.2.5.",
    ],
    (r"a\032b.plant.test", "A"): ["192.0.2.5"],
    (r"dot\.in.label.plant.test", "A"): ["192.0.2.5"],
    (V4.reverse_pointer, "PTR"): ["mx.plant.test.", r"a\032b.plant.test."],
    (V6.reverse_pointer, "PTR"): ["Mx.Plant.Test."],
}
ZONES = ("plant.test", "2.0.192.in-addr.arpa", "8.b.d.0.1.0.0.2.ip6.arpa")


def line(name: str, kind: str, text: str) -> str:
    """A record as it stands in a master file; TXT in strings of 40 octets."""
    if kind == "TXT":
        parts = [text[at : at + 40] for at in range(0, len(text), 40)] or [""]
        text = " ".join(f'"{part}"' for part in parts)
    return f"{name}. {kind} {text}"


@pytest.fixture(scope="module")
def nsd() -> Iterator[Nsd]:
    zones = {
        zone: "\n".join(
            line(name, kind, text)
            for (name, kind), texts in RECORDS.items()
            for text in texts
            if name.endswith(zone)
        )
        for zone in ZONES
    }
    with Nsd(zones, broken=["broken.test"]) as running:
        yield running


@pytest.fixture(params=["static", "caching"])
def resolver(request: pytest.FixtureRequest, nsd: Nsd) -> Resolver:
    """One of each kind, with the same zones."""
    if request.param == "caching":
        return CachingResolver([f"{nsd.address}:{nsd.port}"])
    return StaticResolver(RECORDS, names=ZONES, troubles={"broken.test": Trouble.SERVFAIL})


def addresses(*texts: str) -> set[IPAddress]:
    return {ip_address(text) for text in texts}


def test_mail_exchanges(resolver: Resolver) -> None:
    answer = asyncio.run(resolver.mx("plant.test"))
    assert sorted(answer.records) == [
        MailExchange(0, "mx.plant.test"),
        MailExchange(20, "mx2.plant.test"),
        MailExchange(65535, "mx3.plant.test"),
    ]
    assert (answer.exists, answer.canonical, answer.is_secure) == (True, "plant.test", False)
    assert 0 < answer.ttl_s <= 300
    assert answer.expires_at > time.monotonic()


def test_addresses_of_each_family(resolver: Resolver) -> None:
    async def both() -> tuple[Answer[IPAddress], Answer[IPAddress]]:
        return await resolver.ipv4("mx.plant.test"), await resolver.ipv6("mx.plant.test")

    ipv4, ipv6 = asyncio.run(both())
    assert set(ipv4.records) == addresses("192.0.2.5", "192.0.2.7")
    assert set(ipv6.records) == addresses("2001:db8::5")


def test_tlsa_records(resolver: Resolver) -> None:
    answer = asyncio.run(resolver.tlsa("_25._tcp.mx.plant.test"))
    assert set(answer.records) == {
        TlsaRecord(3, 1, 1, b"\x00\xff" + b"\xab" * 30),
        TlsaRecord(2, 0, 0, b"\x30\x00"),
    }
    assert asyncio.run(resolver.tlsa("_25._tcp.only4.plant.test")).records == ()


def test_an_ipv4_address_in_ipv6_is_that_address(resolver: Resolver) -> None:
    answer = asyncio.run(resolver.ipv6("mapped.plant.test"))
    assert set(answer.records) == addresses("192.0.2.5")


def test_the_strings_of_a_text_are_joined(resolver: Resolver) -> None:
    answer = asyncio.run(resolver.txt("plant.test"))
    assert sorted(answer.records) == ["", "a b", LONG_TEXT]


@pytest.mark.parametrize(
    ("ip", "names"),
    [(V4, {"mx.plant.test", r"a\032b.plant.test"}), (V6, {"mx.plant.test"}), (NAMELESS, set())],
)
def test_names_of_an_address(resolver: Resolver, ip: IPAddress, names: set[str]) -> None:
    answer = asyncio.run(resolver.ptr(ip))
    assert set(answer.records) == names
    assert answer.exists is bool(names)
    assert answer.canonical == ip.reverse_pointer


@pytest.mark.parametrize(
    ("name", "exists"),
    [
        ("missing.plant.test", False),
        ("only4.plant.test", True),
        ("empty.plant.test", True),  # it has nothing itself, but a name below it has
        ("nowhere.plant.test", False),  # its target is what does not exist
        ("x.mx.plant.test", False),
    ],
)
def test_no_such_name_and_no_such_record_are_two_answers(
    resolver: Resolver, name: str, exists: bool
) -> None:
    answer = asyncio.run(resolver.ipv6(name))
    assert (tuple(answer.records), answer.exists) == ((), exists)
    assert answer.ttl_s <= 300


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("alias.plant.test", "mx.plant.test"),
        ("mx.plant.test", "mx.plant.test"),
        ("nowhere.plant.test", "missing.plant.test"),
        ("missing.plant.test", "missing.plant.test"),
    ],
)
def test_aliases_are_followed(resolver: Resolver, name: str, canonical: str) -> None:
    answer = asyncio.run(resolver.ipv6(name))
    assert answer.canonical == canonical
    assert bool(answer.records) == (canonical == "mx.plant.test")


def test_aliases_of_each_other_are_trouble(resolver: Resolver) -> None:
    with pytest.raises(ResolverUnavailable):
        asyncio.run(resolver.ipv4("loop.plant.test"))


def test_the_root_as_mail_exchange_is_empty(resolver: Resolver) -> None:
    assert tuple(asyncio.run(resolver.mx("null.plant.test")).records) == (MailExchange(0, ""),)


@pytest.mark.parametrize("name", ["PLANT.Test", "plant.test.", "Plant.TEST."])
def test_neither_case_nor_a_final_dot_matters(resolver: Resolver, name: str) -> None:
    answer = asyncio.run(resolver.mx(name))
    assert len(answer.records) == 3
    assert answer.canonical == "plant.test"


@pytest.mark.parametrize(
    "name",
    [
        f"{'x' * 64}.plant.test",
        f"x.{LONGEST}",
        f"x{LONGEST}"[:254],
        "a..plant.test",
        ".plant.test",
        "..",
    ],
)
def test_a_name_that_cannot_be_does_not_exist(resolver: Resolver, name: str) -> None:
    answer = asyncio.run(resolver.ipv4(name))
    assert (tuple(answer.records), answer.exists) == ((), False)


@pytest.mark.parametrize("name", [LONGEST, "under_score.plant.test", r"a\032b.plant.test"])
def test_names_that_are_unusual(resolver: Resolver, name: str) -> None:
    answer = asyncio.run(resolver.ipv4(name))
    assert set(answer.records) == addresses("192.0.2.5")
    assert answer.canonical == name


def test_names_with_an_underscore_have_texts(resolver: Resolver) -> None:
    answer = asyncio.run(resolver.txt("_dmarc.plant.test"))
    assert tuple(answer.records) == ("v=DMARC1; p=reject",)


def test_odd_octets_of_a_host_are_escaped_and_can_be_asked_for(resolver: Resolver) -> None:
    async def follow() -> dict[str, Answer[IPAddress]]:
        exchanges = sorted((await resolver.mx("odd.plant.test")).records)
        hosts = [exchange.host for exchange in exchanges]
        return {host: await resolver.ipv4(host) for host in hosts if host.endswith("plant.test")}

    hosts = [
        exchange.host for exchange in sorted(asyncio.run(resolver.mx("odd.plant.test")).records)
    ]
    assert hosts == [
        r"a\032b.plant.test",
        r"\027[31m.plant.test",
        r"\255.plant.test",
        r"dot\.in.label.plant.test",
        "dot\\.",
        r"back\\slash.plant.test",
        "*.plant.test",
        "192.0.2.5",
    ]
    assert all(host.isascii() and host.isprintable() for host in hosts)
    found = asyncio.run(follow())
    assert [host for host, answer in found.items() if answer.records] == [
        r"a\032b.plant.test",
        r"dot\.in.label.plant.test",
    ]
    assert all(found[host].canonical == host for host in found)


def test_trouble_is_no_answer(resolver: Resolver) -> None:
    with pytest.raises(ResolverUnavailable, match=r"^DNS: servfail for broken\.test MX$") as caught:
        asyncio.run(resolver.mx("broken.test"))
    assert caught.value.trouble is Trouble.SERVFAIL


def test_an_authority_does_not_validate(resolver: Resolver) -> None:
    assert asyncio.run(resolver.validates()) is False
