"""Names of an address, and whether they lead back to it."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest

from tests.support.static_resolver import StaticResolver, count_of
from waypost.dns.resolver import Trouble
from waypost.dns.reverse import MAX_NAMES, Confirmation, ReverseNames, reverse_names
from waypost.mail.address import IPAddress

V4 = ip_address("8.8.8.8")
V6 = ip_address("2606:4700::1")


def look(resolver: StaticResolver, ip: IPAddress = V4) -> ReverseNames:
    return asyncio.run(reverse_names(resolver, ip))


def named(*names: str, ip: IPAddress = V4) -> StaticResolver:
    return StaticResolver({(ip.reverse_pointer, "PTR"): names})


@pytest.mark.parametrize(("ip", "kind", "other"), [(V4, "A", "AAAA"), (V6, "AAAA", "A")])
def test_a_name_that_leads_back(ip: IPAddress, kind: str, other: str) -> None:
    resolver = named("mx.a.test", ip=ip)
    resolver.records["mx.a.test", kind] = ["2606:4700::2", str(ip)] if ip is V6 else [str(ip)]
    assert look(resolver, ip) == ReverseNames(("mx.a.test",), ("mx.a.test",), Confirmation.PASS)
    assert count_of(resolver, other) == 0


def test_only_names_that_lead_back_are_confirmed() -> None:
    resolver = named("x.a.test", "mx.a.test", "alias.a.test")
    resolver.records["x.a.test", "A"] = ["8.8.4.4"]
    resolver.records["mx.a.test", "A"] = ["8.8.8.8"]
    resolver.records["alias.a.test", "CNAME"] = ["mx.a.test"]
    found = look(resolver)
    assert found.names == ("x.a.test", "mx.a.test", "alias.a.test")
    assert found.confirmed == ("mx.a.test", "alias.a.test")
    assert found.confirmation is Confirmation.PASS


def test_a_name_that_leads_elsewhere() -> None:
    resolver = named("mx.a.test")
    assert look(resolver).confirmation is Confirmation.FAIL
    resolver.records["mx.a.test", "A"] = ["8.8.4.4"]
    assert look(resolver) == ReverseNames(("mx.a.test",), (), Confirmation.FAIL)


def test_no_name() -> None:
    assert look(StaticResolver()) == ReverseNames((), (), Confirmation.NONE)
    assert look(StaticResolver(names=[V4.reverse_pointer])).confirmation is Confirmation.NONE


def test_the_root_is_no_name() -> None:
    resolver = named(".")
    assert look(resolver) == ReverseNames((), (), Confirmation.NONE)
    assert look(named(".", "mx.a.test")).names == ("mx.a.test",)


def test_trouble_with_the_address() -> None:
    resolver = StaticResolver(troubles={V4.reverse_pointer: Trouble.TIMEOUT})
    assert look(resolver) == ReverseNames((), (), Confirmation.UNKNOWN)


def test_trouble_with_a_name() -> None:
    resolver = named("mx.a.test", "x.a.test")
    resolver.troubles["x.a.test"] = Trouble.SERVFAIL
    assert look(resolver).confirmation is Confirmation.UNKNOWN
    resolver.records["mx.a.test", "A"] = ["8.8.8.8"]
    assert look(resolver).confirmation is Confirmation.PASS


def test_not_all_of_many_names_are_looked_up() -> None:
    resolver = named(*(f"a{number}.a.test" for number in range(5_000)))
    found = look(resolver)
    assert found.confirmation is Confirmation.FAIL
    assert len(found.names) == count_of(resolver, "A") == MAX_NAMES
