"""The hosts that take mail for a name (routing/exchanges.py)."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest

from tests.support.static_resolver import StaticResolver, count_of
from waypost.dns.resolver import ResolverUnavailable, Trouble
from waypost.routing.exchanges import MAX_ADDRESSES, MAX_EXCHANGES, Exchanges, exchanges_of


def look(resolver: StaticResolver, name: str = "a.test") -> Exchanges:
    return asyncio.run(exchanges_of(resolver, name))


def hosts(found: Exchanges) -> list[str]:
    return [exchange.host for exchange in found.exchanges]


def test_the_most_preferred_comes_first() -> None:
    resolver = StaticResolver(
        {
            ("a.test", "MX"): ["20 b.a.test", "0 z.a.test", "10 mx.b.test", "20 a.a.test"],
            ("z.a.test", "A"): ["8.8.8.8"],
            ("z.a.test", "AAAA"): ["2606:4700::1"],
            ("mx.b.test", "A"): ["8.8.4.4"],
            ("a.a.test", "A"): ["8.8.4.5"],
            ("b.a.test", "A"): ["8.8.4.6"],
        },
        secure=["a.test"],
    )
    found = look(resolver)
    assert hosts(found) == ["z.a.test", "mx.b.test", "a.a.test", "b.a.test"]
    assert [exchange.preference for exchange in found.exchanges] == [0, 10, 20, 20]
    assert found.exchanges[0].addresses == (ip_address("2606:4700::1"), ip_address("8.8.8.8"))
    assert (found.exists, found.is_implicit, found.is_null) == (True, False, False)
    assert found.is_secure
    assert found.ttl_s == 300


def test_without_mx_a_name_is_its_own() -> None:
    found = look(StaticResolver({("a.test", "A"): ["8.8.8.8"]}))
    assert (found.is_implicit, hosts(found)) == (True, ["a.test"])
    assert found.exchanges[0].addresses == (ip_address("8.8.8.8"),)


def test_a_name_without_anything() -> None:
    found = look(StaticResolver(names=["a.test"]))
    assert (found.exists, found.is_implicit) == (True, True)
    assert found.exchanges[0].addresses == ()


def test_no_such_name() -> None:
    resolver = StaticResolver()
    assert look(resolver) == Exchanges("a.test", False, ttl_s=300)
    assert resolver.asked.total() == 1


def test_an_alias_is_followed_and_is_no_fault() -> None:
    """The name itself may be an alias (RFC 5321 §5.1); a host of an MX record may not."""
    resolver = StaticResolver(
        {
            ("a.test", "CNAME"): ["b.test"],
            ("b.test", "MX"): ["10 mx.b.test"],
            ("mx.b.test", "A"): ["8.8.8.8"],
            ("c.test", "CNAME"): ["mx.b.test"],
        }
    )
    assert hosts(look(resolver)) == ["mx.b.test"]
    [itself] = look(resolver, "c.test").exchanges
    assert (itself.host, itself.addresses) == ("c.test", (ip_address("8.8.8.8"),))
    assert not itself.is_alias


def test_an_alias_as_host_is_told() -> None:
    resolver = StaticResolver(
        {
            ("a.test", "MX"): ["10 MX.a.test.", "20 alias.a.test", "30 dead.a.test"],
            ("mx.a.test", "A"): ["8.8.8.8"],
            ("alias.a.test", "CNAME"): ["mx.a.test"],
            ("dead.a.test", "CNAME"): ["nothing.a.test"],
        }
    )
    assert [exchange.is_alias for exchange in look(resolver).exchanges] == [False, True, False]


@pytest.mark.parametrize(
    ("records", "is_null", "left"),
    [
        (["0 ."], True, []),
        (["10 ."], True, []),
        (["0 .", "10 ."], True, []),
        (["0 .", "10 mx.a.test"], False, ["mx.a.test"]),  # RFC 7505 §3 forbids it
    ],
)
def test_the_null_record(records: list[str], is_null: bool, left: list[str]) -> None:
    found = look(StaticResolver({("a.test", "MX"): records}))
    assert (found.is_null, hosts(found)) == (is_null, left)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_an_address_as_host_is_told_and_not_asked_for(host: str) -> None:
    resolver = StaticResolver({("a.test", "MX"): [f"10 {host}."]})
    [exchange] = look(resolver).exchanges
    assert (exchange.is_ip, exchange.addresses) == (True, ())
    assert resolver.asked.total() == 1


def test_a_host_without_address_stays_in_its_place() -> None:
    resolver = StaticResolver(
        {("a.test", "MX"): ["10 none.a.test", "20 mx.a.test"], ("mx.a.test", "A"): ["8.8.8.8"]}
    )
    found = look(resolver)
    assert [len(exchange.addresses) for exchange in found.exchanges] == [0, 1]
    assert found.exchanges[0].trouble is None


def test_trouble_with_one_host() -> None:
    resolver = StaticResolver(
        {("a.test", "MX"): ["10 ill.a.test", "20 mx.a.test"], ("mx.a.test", "A"): ["8.8.8.8"]},
        troubles={"ill.a.test": Trouble.SERVFAIL},
    )
    ill, well = look(resolver).exchanges
    assert ill.trouble is not None
    assert ill.trouble.trouble is Trouble.SERVFAIL
    assert (well.trouble, len(well.addresses)) == (None, 1)


@pytest.mark.parametrize("has_other", [True, False])
def test_trouble_with_one_family_is_told_beside_the_other(has_other: bool) -> None:
    resolver = StaticResolver(
        {("a.test", "MX"): ["10 mx.a.test"]},
        names=["mx.a.test"],
        troubles={("mx.a.test", "AAAA"): Trouble.TIMEOUT},
    )
    if has_other:
        resolver.records["mx.a.test", "A"] = ["8.8.8.8"]
    [exchange] = look(resolver).exchanges
    assert exchange.trouble is not None
    assert bool(exchange.addresses) == has_other


def test_trouble_with_the_name_itself() -> None:
    with pytest.raises(ResolverUnavailable):
        look(StaticResolver(troubles={("a.test", "MX"): Trouble.BOGUS}))


def test_a_host_named_twice_counts_once() -> None:
    resolver = StaticResolver(
        {
            ("a.test", "MX"): ["20 mx.a.test", "10 MX.A.test", "30 x.a.test"],
            ("mx.a.test", "A"): ["8.8.8.8"],
        }
    )
    found = look(resolver)
    assert [(each.preference, each.host) for each in found.exchanges] == [
        (10, "mx.a.test"),
        (30, "x.a.test"),
    ]


def test_an_address_of_both_families_counts_once() -> None:
    resolver = StaticResolver(
        {("a.test", "A"): ["8.8.8.8"], ("a.test", "AAAA"): ["::ffff:8.8.8.8"]}
    )
    [itself] = look(resolver).exchanges
    assert itself.addresses == (ip_address("8.8.8.8"),)


def test_too_many_hosts_and_addresses_are_left_out() -> None:
    many = [f"8.8.{number // 250}.{number % 250}" for number in range(4_000)]
    resolver = StaticResolver(
        {
            ("a.test", "MX"): [f"{999 - number} mx{number}.a.test" for number in range(500)],
            ("mx499.a.test", "A"): many,
            ("mx499.a.test", "AAAA"): [f"2606:4700::{number:x}" for number in range(1, 500)],
        }
    )
    found = look(resolver)
    assert hosts(found) == [f"mx{499 - number}.a.test" for number in range(MAX_EXCHANGES)]
    assert count_of(resolver, "A") == count_of(resolver, "AAAA") == MAX_EXCHANGES
    versions = [ip.version for ip in found.exchanges[0].addresses]
    assert versions == [6, 4] * MAX_ADDRESSES  # in turn (RFC 8305 §4)
