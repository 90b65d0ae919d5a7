"""Domain groups: an address that stands for domains."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from waypost.mail.address import Address, AddressLiteral, Domain, IPAddress
from waypost.routing.groups import DomainGroups, GroupSettings

PLANT, SHOP, SIX = (ip_address(text) for text in ("192.168.1.10", "192.168.1.11", "fd00::11"))
GROUPS = DomainGroups(
    GroupSettings(
        groups=(
            (PLANT, (Domain("plant.example"),)),
            (SHOP, (Domain("shop.example"), Domain("depot.example"))),
            (SIX, (Domain("shop.example"),)),
        ),
        names=((SHOP, Domain("mail.shop.example")),),
        moved=((ip_address("192.168.1.50"), AddressLiteral(ip_address("192.168.1.77"))),),
    )
)


def test_which_domains_stand_behind_an_address() -> None:
    assert GROUPS.domains_at(SHOP) == ("shop.example", "depot.example")
    assert GROUPS.domains_at(ip_address("192.168.1.12")) == ()
    assert GROUPS.has(Domain("depot.example"))
    assert not GROUPS.has(Domain("elsewhere.example"))


@pytest.mark.parametrize(
    ("sender", "sources"),
    [
        ("ann@plant.example", [PLANT]),
        ("ann@PLANT.example", [PLANT]),
        ("ann@shop.example", [SHOP, SIX]),
        ("ann@sub.shop.example", []),
        ("ann@elsewhere.example", []),
        ("ann@[192.168.1.10]", [PLANT]),
        ("ann@[IPv6:::ffff:192.168.1.10]", [PLANT]),
        ("ann@[192.168.1.12]", []),
        ("ann@[tag:x]", []),
        (None, []),
    ],
)
def test_which_address_mail_leaves_by(sender: str | None, sources: list[IPAddress]) -> None:
    address = None if sender is None else Address.parse(sender)
    assert list(GROUPS.sources_of(address)) == sources


@pytest.mark.parametrize(
    ("ip", "hostname", "name"),
    [
        (SHOP, "hub.lan", "mail.shop.example"),
        (SHOP, None, "mail.shop.example"),
        (PLANT, "hub.lan", "[192.168.1.10]"),  # a group's own, never the hub's name
        (SIX, "hub.lan", "[IPv6:fd00::11]"),
        (ip_address("192.168.1.12"), "hub.lan", "hub.lan"),
        (ip_address("192.168.1.12"), None, "[192.168.1.12]"),
    ],
)
def test_what_we_call_ourselves(ip: IPAddress, hostname: str | None, name: str) -> None:
    assert GROUPS.name_of(ip, hostname) == name


def test_names_of_addresses_are_our_own() -> None:
    assert GROUPS.is_own_name("mail.shop.example")
    assert not GROUPS.is_own_name("shop.example")


def test_where_a_host_has_moved() -> None:
    def moved(text: str) -> str | None:
        place = GROUPS.new_place(Address.parse(text).domain)
        return None if place is None else str(place)

    assert moved("x@[192.168.1.50]") == "[192.168.1.77]"
    assert moved("x@[IPv6:::ffff:192.168.1.50]") == "[192.168.1.77]"
    assert moved("x@[192.168.1.77]") is None
    assert moved("x@plant.example") is None
    assert moved("x@192.168.1.50") is None  # the table reads bare addresses first
