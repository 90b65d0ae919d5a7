"""What is asked of a host: rules, trusted authorities, MTA-STS, DANE and REQUIRETLS together."""

from __future__ import annotations

import asyncio
from io import BytesIO
from ipaddress import ip_address
from pathlib import Path
from typing import BinaryIO

import pytest

from tests.support.static_resolver import StaticResolver
from waypost.delivery.connection import TlsUnmet
from waypost.delivery.demands import Demand, Demands
from waypost.dns.resolver import Resolver, ResolverUnavailable, Trouble
from waypost.mail.address import Address, AddressLiteral, Domain
from waypost.mail.envelope import Arrival, Envelope, Hop, QueueId
from waypost.mail.message import QueuedMessage
from waypost.queue.spool import InlineContent
from waypost.routing.hops import Host, Relay
from waypost.tls.policy import Level, Rule, Scope, TlsPolicy, TrustedAuthority
from waypost.tls.sts import Mode, StsPolicy

IP = ip_address("192.0.2.5")
PLANT = Domain("plant.test")
SITE = Path("/site.pem")
TLSA = "3 1 1 " + "ab" * 32


class Policies:
    """MTA-STS policies without any web."""

    def __init__(self, policy: StsPolicy | None) -> None:
        self._policy = policy
        self.asked = 0

    async def policy(self, domain: Domain, resolver: Resolver) -> StsPolicy | None:
        self.asked += 1
        return self._policy

    async def close(self) -> None:
        """Nothing is under way."""


class Large:
    """Content that is not in memory."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self.size = len(octets)
        self.inline = None

    def open(self) -> BinaryIO:
        return BytesIO(self._octets)


def mail(
    content: bytes = b"x\r\n",
    *,
    requiretls: bool = False,
    is_report: bool = False,
    large: bool = False,
) -> QueuedMessage:
    sender = None if is_report else Address.parse("ann@b.example")
    return QueuedMessage(
        QueueId("1"),
        Envelope(sender, requiretls=requiretls),
        Arrival("ESMTP", IP, IP, "x", "smtp", trusted=True),
        Large(content) if large else InlineContent(content),
        b"",
        0.0,
        is_eight_bit=False,
        reports_allowed=True,
        recipients=(),
    )


def host(name: str = "mx.other.test", *, is_proven: bool = False, port: int = 25) -> Host:
    return Host((Hop(name, IP, port),), is_proven)


def secure(*hosts: str, tlsa: str = TLSA, **options: object) -> StaticResolver:
    """A zone that is signed, with TLSA records."""
    records = {}
    for name in hosts:
        records[name, "A"] = [str(IP)]
        records[f"_25._tcp.{name}", "TLSA"] = [tlsa]
    names = [name for name, _ in records]
    return StaticResolver(records, secure=names, **options)  # type: ignore[arg-type]


def of_domain(
    where: Host,
    *rules: Rule,
    sts: StsPolicy | None = None,
    trusted: tuple[TrustedAuthority, ...] = (),
    message: QueuedMessage | None = None,
    resolver: StaticResolver | None = None,
) -> Demand:
    resolver = resolver or StaticResolver()

    async def asked() -> Demand:
        demands = Demands(TlsPolicy(rules, trusted), Policies(sts))  # type: ignore[arg-type]
        wanted = await demands.of_domain(PLANT, message or mail(), resolver)
        return await demands.at(wanted, where, resolver)

    return asyncio.run(asked())


def rule(level: Level, *hosts: str) -> Rule:
    return Rule(Scope(["plant.test"]), level, None, hosts)


ENFORCE = StsPolicy(Mode.ENFORCE, 1, ("*.other.test",))
TESTING = StsPolicy(Mode.TESTING, 1, ("mx2.other.test",))


def test_nobody_asks_for_anything() -> None:
    assert of_domain(host()) == Demand(Level.OPPORTUNISTIC, "default")
    assert of_domain(host(), sts=TESTING).level is Level.OPPORTUNISTIC
    none = StsPolicy(Mode.NONE, 1, ())
    assert of_domain(host(), sts=none).level is Level.OPPORTUNISTIC


@pytest.mark.parametrize("level", [Level.VERIFY, Level.PIN])
def test_a_host_has_to_be_known_before_it_proves_its_name(level: Level) -> None:
    with pytest.raises(TlsUnmet, match="named by DNS alone"):
        of_domain(host(), rule(level))
    assert of_domain(host(is_proven=True), rule(level)).level is level
    assert of_domain(host(), rule(level, "mx.other.test")).level is level
    # What the rule says is all there is.
    with pytest.raises(TlsUnmet, match="none of its hosts"):
        of_domain(host(is_proven=True), rule(level, "mx2.other.test"))
    # Encryption proves nothing, and so needs no proof.
    assert of_domain(host(), rule(Level.ENCRYPT)).level is Level.ENCRYPT


def test_a_trusted_authority_vouches_for_a_domain() -> None:
    trusted = (TrustedAuthority(Scope(["plant.test"]), SITE),)
    demand = of_domain(host(is_proven=True), trusted=trusted)
    assert demand == Demand(Level.VERIFY, "tls trust", (SITE,))
    with pytest.raises(TlsUnmet):
        of_domain(host(), trusted=trusted)


def test_mta_sts() -> None:
    assert of_domain(host(), sts=ENFORCE) == Demand(Level.VERIFY, "MTA-STS")
    with pytest.raises(TlsUnmet, match="none of the hosts of plant"):
        of_domain(host("mx.evil.test"), sts=ENFORCE)
    with pytest.raises(TlsUnmet):
        of_domain(host("a.b.other.test", is_proven=True), sts=ENFORCE)


def test_dane_needs_a_proven_host() -> None:
    resolver = secure("mx.other.test")
    demand = of_domain(host(is_proven=True), resolver=resolver)
    assert (demand.level, demand.because) == (Level.DANE, "its zone")
    assert demand.names == ("mx.other.test", "plant.test")
    assert of_domain(host(), resolver=resolver).level is Level.OPPORTUNISTIC
    useless = secure("mx.other.test", tlsa="1 1 1 " + "ab" * 32)
    demand = of_domain(host(is_proven=True), resolver=useless)
    assert (demand.level, demand.tlsa) == (Level.ENCRYPT, ())


def test_who_has_both_gets_both() -> None:
    demand = of_domain(host(is_proven=True), sts=ENFORCE, resolver=secure("mx.other.test"))
    assert (demand.level, demand.because) == (Level.VERIFY, "MTA-STS")
    assert len(demand.tlsa) == 1
    useless = secure("mx.other.test", tlsa="1 1 1 " + "ab" * 32)
    assert of_domain(host(is_proven=True), sts=ENFORCE, resolver=useless).level is Level.VERIFY


def test_trouble_with_the_zone_is_no_way_out() -> None:
    resolver = secure("mx.other.test", troubles={"_25._tcp.mx.other.test": Trouble.SERVFAIL})
    with pytest.raises(ResolverUnavailable):
        of_domain(host(is_proven=True), resolver=resolver)


def test_a_rule_is_the_last_word() -> None:
    resolver = secure("mx.other.test")
    for level in (Level.NONE, Level.OPPORTUNISTIC, Level.ENCRYPT):
        demand = of_domain(host(is_proven=True), rule(level), sts=ENFORCE, resolver=resolver)
        assert (demand.level, demand.tlsa) == (level, ())


def test_level_dane() -> None:
    resolver = secure("mx.other.test")
    found = of_domain(host(is_proven=True), rule(Level.DANE), resolver=resolver)
    assert (found.level, found.because, len(found.tlsa)) == (Level.DANE, "tls.policy[1]", 1)
    for where, zone in (
        (host(), resolver),
        (host(is_proven=True), StaticResolver()),
        (host(is_proven=True), secure("mx.other.test", tlsa="1 1 1 " + "ab" * 32)),
    ):
        with pytest.raises(TlsUnmet):
            of_domain(where, rule(Level.DANE), resolver=zone)


def test_requiretls() -> None:
    asks = mail(requiretls=True)
    with pytest.raises(TlsUnmet):
        of_domain(host(), message=asks)
    with pytest.raises(TlsUnmet):
        of_domain(host(), rule(Level.NONE), message=asks)
    proven = host(is_proven=True)
    assert of_domain(proven, message=asks) == Demand(Level.VERIFY, "REQUIRETLS")
    assert of_domain(proven, rule(Level.ENCRYPT), message=asks).level is Level.VERIFY
    assert of_domain(host(), sts=ENFORCE, message=asks).because == "MTA-STS"
    assert of_domain(proven, rule(Level.PIN), message=asks).level is Level.PIN
    dane = of_domain(proven, message=asks, resolver=secure("mx.other.test"))
    assert dane.level is Level.DANE
    report = mail(requiretls=True, is_report=True)
    assert of_domain(host(), message=report).level is Level.OPPORTUNISTIC


@pytest.mark.parametrize("large", [False, True])
def test_tls_required_no(large: bool) -> None:
    resolver = secure("mx.other.test")
    field = b"From: a@b.example\r\nTLS-Required: No\r\n\r\n"

    def level(content: bytes, *rules: Rule, requiretls: bool = False) -> Level:
        message = mail(content, requiretls=requiretls, large=large)
        where = host(is_proven=True)
        return of_domain(where, *rules, sts=ENFORCE, message=message, resolver=resolver).level

    assert level(field) is Level.OPPORTUNISTIC
    assert level(field, rule(Level.VERIFY)) is Level.VERIFY
    assert level(field, requiretls=True) is Level.VERIFY
    for other in (
        b"From: a@b.example\r\n\r\nTLS-Required: No\r\n",
        b"TLS-Required: Nobody\r\n\r\n",
        b"X-TLS-Required: No\r\n\r\n",
        b"Subject: x\r\n TLS-Required: No\r\n\r\n",
        b"",
    ):
        assert level(other) is Level.VERIFY


def at(demands: Demands, relay: Relay, where: Host, resolver: StaticResolver) -> Demand:
    return asyncio.run(demands.at(demands.of_relay(relay, mail()), where, resolver))


def test_relays() -> None:
    trusted = (TrustedAuthority(Scope(["192.0.2.0/24", "smtp.isp.test"]), SITE),)
    rules = (Rule(Scope(["*", "any"]), Level.NONE),)
    demands = Demands(TlsPolicy(rules, trusted), Policies(ENFORCE))  # type: ignore[arg-type]
    resolver = secure("smtp.isp.test")
    named, literal = host("smtp.isp.test", is_proven=True), host("[192.0.2.5]", is_proven=True)
    relay = Relay("isp", (Domain("smtp.isp.test"), AddressLiteral(IP)), 25)
    for where in (named, literal):
        assert at(demands, relay, where, resolver) == Demand(Level.VERIFY, "relay.isp", (SITE,))
    other = host("smtp2.isp.test", is_proven=True)
    assert at(demands, relay, other, resolver).ca == ()
    own = Relay("isp", relay.hosts, 25, "verify", Path("/own.pem"))
    assert at(demands, own, named, resolver).ca == (Path("/own.pem"),)
    dane = Relay("isp", relay.hosts, 25, "dane")
    assert at(demands, dane, named, resolver).level is Level.DANE
    for where in (literal, other):
        with pytest.raises(TlsUnmet):
            at(demands, dane, where, resolver)
    for level in (Level.NONE, Level.OPPORTUNISTIC, Level.ENCRYPT, Level.PIN):
        plain = Relay("isp", relay.hosts, 25, level)
        assert at(demands, plain, named, resolver).level is level


def test_literals_ask_nobody() -> None:
    policies = Policies(ENFORCE)
    demands = Demands(TlsPolicy(), policies)  # type: ignore[arg-type]
    resolver = StaticResolver()
    wanted = demands.of_host(AddressLiteral(IP), mail())
    demand = asyncio.run(demands.at(wanted, host("[192.0.2.5]", is_proven=True), resolver))
    assert demand == Demand(Level.OPPORTUNISTIC, "default")
    assert not resolver.asked
    assert not policies.asked
