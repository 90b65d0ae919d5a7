"""The name servers that other tests rely on do what these tests ask of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import pytest

from tests.support.dns_servers import DnsServerError, Nsd, Unbound, signed_tree
from tests.support.netns import Namespace

Hosts = tuple[Namespace, Namespace]

ZONE = """
    @            MX  10 mx
    mx           A   192.0.2.5
    elsewhere    CNAME mx.plain.test.
    _25._tcp.mx  TLSA 3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
    *.any        MX  0 .
"""


def ask(
    server: Nsd | Unbound, name: str, kind: str, *, tcp: bool = False, flags: int = 0
) -> dns.message.Message:
    """What a server answers."""
    query = dns.message.make_query(name, kind, flags=dns.flags.RD | flags)
    over = dns.query.tcp if tcp else dns.query.udp
    return over(query, server.address, timeout=10.0, port=server.port)


def records(answer: dns.message.Message) -> list[str]:
    """The data in the answer section, signatures apart."""
    return [
        record.to_text()
        for rrset in answer.answer
        if rrset.rdtype != dns.rdatatype.RRSIG
        for record in rrset
    ]


def serial_of(server: Nsd, zone: str) -> int:
    return int(records(ask(server, zone, "SOA"))[0].split()[2])


@pytest.fixture(scope="module")
def nsd() -> Iterator[Nsd]:
    """One zone as it should be, and one that is broken."""
    zones = {"plant.test": "@ MX 10 mx\nmx A 192.0.2.5"}
    with Nsd(zones, broken=["broken.test"]) as running:
        yield running


@pytest.fixture(scope="module")
def unbound() -> Iterator[Unbound]:
    """A resolver that validates, in front of zones of each kind."""
    tree = signed_tree(
        secure={"secure.test": ZONE}, insecure={"plain.test": ZONE}, bogus={"bogus.test": ZONE}
    )
    reverse = {"2.0.192.in-addr.arpa": "5 PTR mx.plain.test."}
    with (
        Nsd(tree.zones | reverse, broken=["broken.test"]) as nsd,
        Unbound(nsd, trust_anchors=[tree.trust_anchor]) as running,
    ):
        yield running


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_nsd_answers_for_its_zones(nsd: Nsd, tcp: bool) -> None:
    answer = ask(nsd, "plant.test", "MX", tcp=tcp)
    assert answer.rcode() == dns.rcode.NOERROR
    assert answer.flags & dns.flags.AA
    assert records(answer) == ["10 mx.plant.test."]


def test_nsd_knows_what_is_not_there(nsd: Nsd) -> None:
    assert ask(nsd, "nobody.plant.test", "MX").rcode() == dns.rcode.NXDOMAIN
    empty = ask(nsd, "mx.plant.test", "MX")
    assert (empty.rcode(), empty.answer) == (dns.rcode.NOERROR, [])
    assert ask(nsd, "far.example", "MX").rcode() == dns.rcode.REFUSED


@pytest.mark.parametrize("name", ["broken.test", "mx.broken.test"])
def test_nsd_fails_for_a_broken_zone(nsd: Nsd, name: str) -> None:
    assert ask(nsd, name, "MX").rcode() == dns.rcode.SERVFAIL


def test_nsd_takes_new_zones() -> None:
    with Nsd({"a.test": "@ MX 10 mx0", "b.test": "@ MX 10 b"}, broken=["c.test"]) as nsd:
        for number in range(1, 6):
            before = serial_of(nsd, "a.test")
            nsd.reload({"a.test": f"@ MX 10 mx{number}"})
            assert records(ask(nsd, "a.test", "MX")) == [f"10 mx{number}.a.test."]
            assert serial_of(nsd, "a.test") > before
        assert records(ask(nsd, "b.test", "MX")) == ["10 b.b.test."]
        nsd.reload({"c.test": "@ MX 10 c"})
        assert records(ask(nsd, "c.test", "MX")) == ["10 c.c.test."]


def test_a_mistake_in_a_zone_is_told() -> None:
    with pytest.raises(DnsServerError, match="unrecognized RR type 'MIX'"):
        Nsd({"a.test": "@ MIX 10 mx"}).start()
    with Nsd({"a.test": "@ MX 10 mx"}) as nsd:
        with pytest.raises(DnsServerError, match="unrecognized RR type 'MIX'"):
            nsd.reload({"a.test": "@ MIX 10 mx"})
        with pytest.raises(DnsServerError, match=r"other\.test"):
            nsd.reload({"other.test": "@ MX 10 mx"})
        assert records(ask(nsd, "a.test", "MX")) == ["10 mx.a.test."]


def test_a_server_that_cannot_start_leaves_nothing_behind(nsd: Nsd) -> None:
    second = Nsd({"a.test": "@ MX 10 mx"}, port=nsd.port)
    with pytest.raises(DnsServerError, match="Address already in use"):
        second.start()
    assert second.directory == Path()


def test_a_server_can_be_stopped_and_started_again() -> None:
    with Nsd({"a.test": "@ MX 10 mx"}) as nsd:
        nsd.stop()
        with pytest.raises(ConnectionRefusedError):
            ask(nsd, "a.test", "MX", tcp=True)
        nsd.start()
        assert records(ask(nsd, "a.test", "MX")) == ["10 mx.a.test."]


def test_servers_run_inside_a_namespace(hosts: Hosts) -> None:
    zone = {"plant.test": "@ MX 10 mx"}
    with (
        Nsd(zone, address="10.9.0.2", netns=hosts[1].name) as nsd,
        Unbound(nsd, address="fd00:9::1", netns=hosts[0].name) as unbound,
        hosts[0].entered(),
    ):
        assert (nsd.port, unbound.port) == (53, 53)
        assert records(ask(nsd, "plant.test", "MX")) == ["10 mx.plant.test."]
        assert records(ask(unbound, "plant.test", "MX")) == ["10 mx.plant.test."]


@pytest.mark.parametrize(
    ("name", "kind", "data"),
    [
        ("secure.test", "MX", ["10 mx.secure.test."]),
        ("mx.secure.test", "A", ["192.0.2.5"]),
        ("x.any.secure.test", "MX", ["0 ."]),
        ("mx.secure.test", "AAAA", []),
    ],
)
def test_what_is_signed_is_secure(unbound: Unbound, name: str, kind: str, data: list[str]) -> None:
    answer = ask(unbound, name, kind, flags=dns.flags.AD)
    assert answer.rcode() == dns.rcode.NOERROR
    assert answer.flags & dns.flags.AD
    assert records(answer) == data


def test_a_tlsa_record_is_secure(unbound: Unbound) -> None:
    answer = ask(unbound, "_25._tcp.mx.secure.test", "TLSA", flags=dns.flags.AD)
    assert answer.flags & dns.flags.AD
    assert records(answer)[0].startswith("3 1 1 01234567")


def test_it_is_secure_that_a_name_is_not_there(unbound: Unbound) -> None:
    answer = ask(unbound, "nobody.secure.test", "MX", flags=dns.flags.AD)
    assert answer.rcode() == dns.rcode.NXDOMAIN
    assert answer.flags & dns.flags.AD


@pytest.mark.parametrize(
    ("name", "kind", "data"),
    [
        ("plain.test", "NS", ["ns.invalid."]),
        ("plain.test", "MX", ["10 mx.plain.test."]),
        ("mx.plain.test", "A", ["192.0.2.5"]),
        ("mx.plain.test", "AAAA", []),
        ("elsewhere.secure.test", "A", ["mx.plain.test.", "192.0.2.5"]),
        ("5.2.0.192.in-addr.arpa", "PTR", ["mx.plain.test."]),
    ],
)
def test_what_is_not_signed_is_insecure(
    unbound: Unbound, name: str, kind: str, data: list[str]
) -> None:
    answer = ask(unbound, name, kind, flags=dns.flags.AD)
    assert answer.rcode() == dns.rcode.NOERROR
    assert not answer.flags & dns.flags.AD
    assert records(answer) == data


def test_what_does_not_fit_its_ds_record_is_bogus(unbound: Unbound) -> None:
    assert ask(unbound, "bogus.test", "MX").rcode() == dns.rcode.SERVFAIL
    unchecked = ask(unbound, "bogus.test", "MX", flags=dns.flags.CD)
    assert unchecked.rcode() == dns.rcode.NOERROR
    assert not unchecked.flags & dns.flags.AD
    assert records(unchecked) == ["10 mx.bogus.test."]


@pytest.mark.parametrize("flags", [dns.flags.RD, dns.flags.CD])
def test_a_resolver_fails_for_a_broken_zone(unbound: Unbound, flags: int) -> None:
    assert ask(unbound, "broken.test", "MX", flags=flags).rcode() == dns.rcode.SERVFAIL


def test_without_trust_anchors_nothing_is_validated(nsd: Nsd) -> None:
    with Unbound(nsd) as unbound:
        answer = ask(unbound, "plant.test", "MX", flags=dns.flags.AD)
        assert records(answer) == ["10 mx.plant.test."]
        assert not answer.flags & dns.flags.AD
