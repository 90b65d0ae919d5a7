"""Blocklists (RFC 5782): listings, lists out of order, and what is asked of whom."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from types import SimpleNamespace

import pytest

from tests.support.static_resolver import StaticResolver
from waypost.dns import blocklist
from waypost.dns.blocklist import Blocklists, Listed, Listing, query_name
from waypost.dns.resolver import Trouble

ZONE = "bl.test"
BAD = ip_address("8.8.8.8")
GOOD = ip_address("8.8.4.4")
BAD_NAME = f"8.8.8.8.{ZONE}"

# RFC 5782 §2.4.
NIBBLES = "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.ugly.example.com"
TEST_POINT_4 = f"2.0.0.127.{ZONE}"
TEST_POINT_6 = query_name(ip_address("::ffff:127.0.0.2"), ZONE)


def in_order() -> StaticResolver:
    """A list that passes its tests and lists `BAD`."""
    return StaticResolver(
        {
            (TEST_POINT_4, "A"): ["127.0.0.2"],
            (TEST_POINT_6, "A"): ["127.0.0.2"],
            (BAD_NAME, "A"): ["127.0.0.4"],
            (BAD_NAME, "TXT"): ["Spam,", "see https://bl.test/8.8.8.8"],
        }
    )


def ask(resolver: StaticResolver, ip: str = str(BAD)) -> Listing:
    [listing] = asyncio.run(Blocklists(resolver, [ZONE]).ask(ip_address(ip)))
    return listing


def test_names_asked_for() -> None:
    assert query_name(ip_address("192.0.2.99"), "bad.example.com") == "99.2.0.192.bad.example.com"
    ip = ip_address("2001:db8:1:2:3:4:567:89ab")
    assert query_name(ip, "ugly.example.com") == NIBBLES


def test_a_listing_says_why() -> None:
    assert ask(in_order()) == Listing(
        ZONE, BAD, Listed.YES, "127.0.0.4", "Spam, see https://bl.test/8.8.8.8"
    )


def test_what_is_not_listed() -> None:
    resolver = in_order()
    assert ask(resolver, str(GOOD)) == Listing(ZONE, GOOD, Listed.NO, None, "")
    assert resolver.asked[f"4.4.8.8.{ZONE}", "TXT"] == 0


def test_a_list_need_not_say_why() -> None:
    resolver = in_order()
    del resolver.records[BAD_NAME, "TXT"]
    assert ask(resolver) == Listing(ZONE, BAD, Listed.YES, "127.0.0.4", "")


def test_it_is_listed_though_the_reason_cannot_be_had() -> None:
    resolver = in_order()
    resolver.troubles[BAD_NAME, "TXT"] = Trouble.TIMEOUT
    assert ask(resolver) == Listing(ZONE, BAD, Listed.YES, "127.0.0.4", "")


def test_the_lowest_of_several_codes_is_named() -> None:
    resolver = in_order()
    resolver.records[BAD_NAME, "A"] = ["127.0.0.10", "127.0.0.3", "127.0.0.4"]
    assert ask(resolver).code == "127.0.0.3"


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        (["127.255.255.254"], "127.255.255.254"),
        (["127.255.255.0"], "127.255.255.0"),
        (["127.0.0.2", "127.255.255.255"], "127.255.255.255"),
        (["192.0.2.1"], "192.0.2.1"),
        (["126.255.255.255"], "126.255.255.255"),
        (["127.0.0.2", "128.0.0.0"], "128.0.0.0"),
    ],
)
def test_answers_that_are_errors(answers: list[str], code: str) -> None:
    resolver = in_order()
    resolver.records[BAD_NAME, "A"] = answers
    listing = ask(resolver)
    assert (listing.listed, listing.code) == (Listed.ERROR, code)
    assert code in listing.text


def test_a_list_that_is_empty_is_an_error() -> None:
    listing = ask(StaticResolver(names=[ZONE]))
    assert (listing.listed, listing.code) == (Listed.ERROR, None)
    assert "does not list the test point 127.0.0.2" in listing.text


def test_a_list_that_lists_everybody_is_an_error() -> None:
    """As a zone with a wildcard, or one whose owner sells the domain."""
    resolver = in_order()
    resolver.records[f"1.0.0.127.{ZONE}", "A"] = ["127.0.0.2"]
    listing = ask(resolver)
    assert listing.listed is Listed.ERROR
    assert "lists the test point 127.0.0.1" in listing.text


def test_a_list_that_refuses_us_is_an_error() -> None:
    resolver = in_order()
    resolver.records[TEST_POINT_4, "A"] = ["127.255.255.254"]
    listing = ask(resolver)
    assert listing.listed is Listed.ERROR
    assert "127.255.255.254" in listing.text


@pytest.mark.parametrize("name", [TEST_POINT_4, f"1.0.0.127.{ZONE}", BAD_NAME])
def test_trouble_is_an_error(name: str) -> None:
    resolver = in_order()
    resolver.troubles[name, "A"] = Trouble.SERVFAIL
    listing = ask(resolver)
    assert (listing.listed, listing.code) == (Listed.ERROR, None)
    assert listing.text == f"DNS: servfail for {name} A"


def test_ipv6_has_test_points_of_its_own() -> None:
    resolver = in_order()
    ip = ip_address("2606:4700::1")
    resolver.records[query_name(ip, ZONE), "A"] = ["127.0.0.2"]
    assert ask(resolver, str(ip)).listed is Listed.YES
    assert ask(resolver, "2606:4700::2").listed is Listed.NO
    del resolver.records[TEST_POINT_6, "A"]
    assert ask(resolver, str(ip)).listed is Listed.ERROR
    assert ask(resolver).listed is Listed.YES


def test_zones_answer_in_the_order_of_the_operator() -> None:
    resolver = in_order()
    blocklists = Blocklists(resolver, ["z.test", ZONE, "a.test"])
    listings = asyncio.run(blocklists.ask(BAD))
    assert [listing.zone for listing in listings] == ["z.test", ZONE, "a.test"]
    assert [listing.listed for listing in listings] == [Listed.ERROR, Listed.YES, Listed.ERROR]


def test_without_zones_nobody_is_asked() -> None:
    resolver = in_order()
    assert asyncio.run(Blocklists(resolver, []).ask(BAD)) == []
    assert not resolver.asked


def test_a_list_is_tested_once_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = in_order()
    now = 50.0  # soon after the start of the machine
    monkeypatch.setattr(blocklist, "time", SimpleNamespace(monotonic=lambda: now))

    async def run() -> None:
        nonlocal now
        blocklists = Blocklists(resolver, [ZONE])
        for passed_s, tests in ((0, 1), (0, 1), (3_599, 1), (1, 2), (0, 2)):
            now += passed_s
            await blocklists.ask(BAD)
            assert resolver.asked[TEST_POINT_4, "A"] == tests
        await blocklists.ask(ip_address("2606:4700::1"))
        assert (resolver.asked[TEST_POINT_4, "A"], resolver.asked[TEST_POINT_6, "A"]) == (2, 1)

    asyncio.run(run())


def test_a_list_is_believed_again_as_soon_as_it_is_in_order() -> None:
    """A moment of trouble with the name service does not cost an hour of blocklists."""
    resolver = in_order()
    resolver.troubles[TEST_POINT_4] = Trouble.TIMEOUT

    async def run() -> None:
        blocklists = Blocklists(resolver, [ZONE])
        [listing] = await blocklists.ask(BAD)
        assert listing.listed is Listed.ERROR
        resolver.troubles.clear()
        [listing] = await blocklists.ask(BAD)
        assert listing.listed is Listed.YES

    asyncio.run(run())
