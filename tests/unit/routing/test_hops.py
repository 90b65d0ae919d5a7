"""From a domain or a relay to the hosts to try: RFC 5321 §5.1, RFC 7505, RFC 8305 §4."""

from __future__ import annotations

import asyncio
from collections import Counter
from ipaddress import ip_address

import pytest

from tests.support.static_resolver import StaticResolver, count_of
from waypost.dns.resolver import ResolverUnavailable, Trouble
from waypost.errors import NoWay
from waypost.mail.address import Address, IPAddress
from waypost.routing.hops import Host, Relay, hosts_direct, hosts_of_relay, hosts_to
from waypost.routing.targets import parse_host, parse_next_hop, parse_target

OUR_NAME, OUR_IP = "hub.test", ip_address("203.0.113.1")


def is_ours(host: str, ip: IPAddress | None) -> bool:
    return host == OUR_NAME if ip is None else ip == OUR_IP


def direct(resolver: StaticResolver, path: str = "ann@a.test") -> list[Host]:
    return asyncio.run(hosts_direct(Address.parse(path), 25, resolver, is_ours))


def ips(hosts: list[Host]) -> list[list[str]]:
    return [[str(hop.ip) for hop in host.hops] for host in hosts]


def zone(*exchanges: str, **addresses: str) -> StaticResolver:
    """a.test with these MX records; `mx1="192.0.2.1 fd00::1"` for mx1.test."""
    records: dict[tuple[str, str], list[str]] = {}
    if exchanges:
        records["a.test", "MX"] = [
            text if text.endswith(".") else f"{text}.test" for text in exchanges
        ]
    for name, texts in addresses.items():
        for text in texts.split():
            kind = "AAAA" if ":" in text else "A"
            records.setdefault((f"{name}.test", kind), []).append(text)
    return StaticResolver(records, names=["a.test"])


def test_the_most_preferred_comes_first() -> None:
    resolver = zone("30 c", "10 b", "20 d", b="192.0.2.1 192.0.2.11", c="192.0.2.3", d="192.0.2.2")
    hosts = direct(resolver)
    assert ips(hosts) == [["192.0.2.1", "192.0.2.11"], ["192.0.2.2"], ["192.0.2.3"]]
    assert str(hosts[0]) == "b.test[192.0.2.1]:25 or b.test[192.0.2.11]:25"


def test_equals_are_shuffled_and_never_leave_their_place() -> None:
    resolver = zone(
        *("5 first", "10 b", "10 c", "10 d", "20 last"),
        **{name: f"192.0.2.{number}" for number, name in enumerate(("first", *"bcd", "last"))},
    )
    orders = Counter(tuple(host.hops[0].host for host in direct(resolver)) for _ in range(300))
    assert {(order[0], order[4]) for order in orders} == {("first.test", "last.test")}
    assert len(orders) == 6
    # Each of six orders is expected fifty times.
    assert min(orders.values()) > 10


def test_families_take_turns() -> None:
    resolver = zone("10 b", b="192.0.2.1 192.0.2.2 192.0.2.3 fd00::1")
    assert ips(direct(resolver)) == [["fd00::1", "192.0.2.1", "192.0.2.2", "192.0.2.3"]]
    resolver = zone("10 b", b="192.0.2.1 fd00::1 fd00::2")
    assert ips(direct(resolver)) == [["fd00::1", "192.0.2.1", "fd00::2"]]


def test_a_domain_without_mx_is_its_own_host() -> None:
    assert ips(direct(zone(a="192.0.2.1 fd00::1"))) == [["fd00::1", "192.0.2.1"]]


def test_a_domain_with_mx_never_is() -> None:
    """RFC 5321 §5.1: with MX records that are of no use, its own addresses are not used either."""
    with pytest.raises(NoWay) as caught:
        direct(zone("10 gone", a="192.0.2.1"))
    assert (caught.value.code, caught.value.status) == (550, (4, 4))


@pytest.mark.parametrize(
    ("resolver", "code", "status"),
    [
        (StaticResolver(), 550, (1, 2)),
        (zone(), 550, (4, 4)),
        (zone("0 .", a="192.0.2.1"), 556, (1, 10)),
        (zone("10 gone", "20 gone2"), 550, (4, 4)),
        (StaticResolver({("a.test", "MX"): ["10 192.0.2.1"]}), 550, (4, 4)),
        (StaticResolver({("a.test", "MX"): ["10 fd00::1"]}), 550, (4, 4)),
        (StaticResolver({("a.test", "CNAME"): ["gone.test"]}), 550, (1, 2)),
        (zone("10 hub", hub="192.0.2.1"), 554, (4, 6)),
    ],
)
def test_no_way(resolver: StaticResolver, code: int, status: tuple[int, int]) -> None:
    with pytest.raises(NoWay) as caught:
        direct(resolver)
    assert (caught.value.code, caught.value.status) == (code, status)


def test_an_ip_in_an_mx_record_is_passed_over() -> None:
    resolver = StaticResolver(
        {("a.test", "MX"): ["5 192.0.2.66", "10 b.test"], ("b.test", "A"): ["192.0.2.1"]}
    )
    assert ips(direct(resolver)) == [["192.0.2.1"]]
    assert resolver.asked["192.0.2.66", "A"] == 0


def test_a_null_mx_among_others_does_not_count() -> None:
    """RFC 7505 §3 forbids the mixture; mail would rather be delivered."""
    assert ips(direct(zone("0 .", "10 b", b="192.0.2.1"))) == [["192.0.2.1"]]


def test_aliases() -> None:
    resolver = StaticResolver(
        {
            ("a.test", "CNAME"): ["b.test"],
            ("b.test", "MX"): ["10 alias.test"],
            ("alias.test", "CNAME"): ["mx.test"],
            ("mx.test", "A"): ["192.0.2.1"],
        }
    )
    assert ips(direct(resolver)) == [["192.0.2.1"]]


def test_trouble_is_no_answer() -> None:
    """RFC 5321 §5.1: a temporary error must not look like a missing record."""
    for what in ("a.test", ("a.test", "MX")):
        resolver = StaticResolver(
            {("a.test", "A"): ["192.0.2.1"]}, troubles={what: Trouble.TIMEOUT}
        )
        with pytest.raises(ResolverUnavailable):
            direct(resolver)
    resolver = zone("10 b", "20 gone")
    resolver.troubles["b.test"] = Trouble.SERVFAIL
    with pytest.raises(ResolverUnavailable) as caught:
        direct(resolver)
    assert caught.value.status == (4, 3)


def test_trouble_with_one_host_or_family_leaves_the_others() -> None:
    resolver = zone("10 b", "20 c", b="192.0.2.1", c="192.0.2.2")
    resolver.troubles["b.test"] = Trouble.TIMEOUT
    assert ips(direct(resolver)) == [["192.0.2.2"]]
    resolver.troubles = {("c.test", "AAAA"): Trouble.SERVFAIL, "b.test": Trouble.TIMEOUT}
    assert ips(direct(resolver)) == [["192.0.2.2"]]


@pytest.mark.parametrize(
    ("exchanges", "left"),
    [
        (["10 b", "20 hub", "30 c"], [["192.0.2.1"]]),
        (["10 b", "20 hub", "20 c"], [["192.0.2.1"]]),
        (["10 b", "20 byip", "30 c"], [["192.0.2.1"]]),
        (["10 b", "20 c"], [["192.0.2.1"], ["192.0.2.2"]]),
        (["10 hub", "20 b"], None),
        (["10 hub", "10 b"], None),
    ],
)
def test_loop_guard(exchanges: list[str], left: list[list[str]] | None) -> None:
    """RFC 5321 §5.1: ourselves, our equals and all less preferred are cut off."""
    resolver = zone(
        *exchanges, b="192.0.2.1", c="192.0.2.2", hub="192.0.2.9", byip=f"192.0.2.8 {OUR_IP}"
    )
    if left is not None:
        assert ips(direct(resolver)) == left
        return
    with pytest.raises(NoWay) as caught:
        direct(resolver)
    assert caught.value.status == (4, 6)


def test_our_own_name_needs_no_address() -> None:
    with pytest.raises(NoWay) as caught:
        direct(zone("10 hub", "20 b", b="192.0.2.1"))
    assert caught.value.status == (4, 6)


def test_a_domain_that_is_us_by_its_address() -> None:
    with pytest.raises(NoWay) as caught:
        direct(zone(a=str(OUR_IP)))
    assert caught.value.status == (4, 6)


def test_an_internationalised_domain_is_asked_for_by_its_a_label() -> None:
    resolver = StaticResolver({("xn--bcher-kva.test", "A"): ["192.0.2.1"]})
    assert ips(direct(resolver, "ann@Bücher.test")) == [["192.0.2.1"]]


# Targets and relays.


def relay(resolver: StaticResolver, *hosts: str) -> list[str]:
    entry = Relay("isp", tuple(map(parse_host, hosts)), 587)
    return [str(host) for host in asyncio.run(hosts_of_relay(entry, resolver))]


def test_relays_in_order_by_name_and_ip() -> None:
    resolver = zone("10 elsewhere", b="192.0.2.1 fd00::1")
    assert relay(resolver, "b.test", "192.0.2.7", "[IPv6:fd00::7]") == [
        "b.test[fd00::1]:587 or b.test[192.0.2.1]:587",
        "[192.0.2.7]:587",
        "[IPv6:fd00::7]:587",
    ]
    assert count_of(resolver, "MX") == 0


def test_a_relay_without_address_is_passed_over() -> None:
    resolver = zone(b="192.0.2.1")
    resolver.troubles["c.test"] = Trouble.TIMEOUT
    assert relay(resolver, "c.test", "gone.test", "b.test") == ["b.test[192.0.2.1]:587"]


@pytest.mark.parametrize(
    "hosts", [("c.test", "gone.test"), ("gone.test", "c.test"), ("gone.test",)]
)
def test_no_relay_has_an_address(hosts: tuple[str, ...]) -> None:
    """It is for the operator to repair: mail waits meanwhile, whatever the order."""
    resolver = StaticResolver(troubles={"c.test": Trouble.TIMEOUT})
    with pytest.raises((NoWay, ResolverUnavailable)) as caught:
        relay(resolver, *hosts)
    assert isinstance(caught.value, ResolverUnavailable) or caught.value.code == 451


def test_a_named_target_does_without_mx() -> None:
    resolver = StaticResolver({("a.test", "MX"): ["10 b.test"], ("a.test", "A"): ["192.0.2.1"]})
    target = parse_next_hop(parse_target("smtp:A.test:2525"))
    assert [str(host) for host in asyncio.run(hosts_to(target, resolver))] == [
        "a.test[192.0.2.1]:2525"
    ]
    assert count_of(resolver, "MX") == 0
    with pytest.raises(NoWay) as caught:
        asyncio.run(hosts_to(parse_next_hop(parse_target("smtp:gone.test:25")), resolver))
    assert caught.value.code == 451
