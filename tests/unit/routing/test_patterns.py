"""Patterns of routes: texts, addresses, networks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cost import least_cost
from waypost.mail.address import Address
from waypost.routing.patterns import AddressGlob, Glob


@pytest.mark.parametrize(
    ("glob", "text", "does"),
    [
        ("*motion*", "Motion at gate 3", True),
        ("*motion*", "all quiet", False),
        ("alarm", "alarm", True),
        ("alarm", "alarms", False),
        ("ALARM?", "alarm7", True),
        ("alarm?", "alarm", False),
        ("*", "", True),
        ("[urgent]*", "[URGENT] fire", True),
        ("[urgent]*", "u fire", False),
        ("100%", "100%", True),
        (r"a\b", r"a\b", True),
        ("a.b", "axb", False),
        ("a|b", "a", False),
        ("grüße*", "GRÜSSE", False),
        ("grün*", "GRÜN!", True),
        ("two*lines", "two\nlines", True),
    ],
)
def test_glob(glob: str, text: str, does: bool) -> None:
    assert Glob(glob).matches(text) is does
    assert str(Glob(glob)) == glob


def test_the_cost_of_many_stars_grows_with_the_length_and_not_its_square() -> None:
    glob = Glob("*a" * 30 + "*b")
    small, large = (least_cost(lambda n=n: glob.matches("a" * n)) for n in (2_000, 20_000))
    assert not glob.matches("a" * 5_000)
    assert large < 40 * small


@given(st.text(max_size=40))
def test_a_text_without_wildcards_matches_itself(text: str) -> None:
    if not set("*?") & set(text):
        assert Glob(text).matches(text)
    assert Glob("*").matches(text)


@pytest.mark.parametrize(
    ("glob", "address", "does"),
    [
        ("*@[10.0.0.0/8]", "cam@[10.3.4.5]", True),
        ("*@[10.0.0.0/8]", "cam@[11.0.0.1]", False),
        ("*@[10.0.0.0/8]", "cam@plant.example", False),
        ("*@[10.0.0.0/8]", "cam@10.0.0.1", False),  # a name, until it was read as a literal
        ("*@[10.0.0.0/8]", "cam@[IPv6:::ffff:10.0.0.1]", True),
        ("*@[10.0.0.0/8]", "cam@[IPv6:fd00::1]", False),
        ("*@[10.0.0.5/32]", "cam@[10.0.0.5]", True),
        ("*@[0.0.0.0/0]", "cam@[203.0.113.9]", True),
        ("*@[0.0.0.0/0]", "cam@[IPv6:fd00::1]", False),
        ("cam*@[10.0.0.0/8]", "CAM7@[10.0.0.1]", True),
        ("cam*@[10.0.0.0/8]", "door@[10.0.0.1]", False),
        ("*@[IPv6:fd00::/8]", "cam@[IPv6:fd12::1]", True),
        ("*@[ipv6:FD00::/8]", "cam@[IPv6:fe80::1]", False),
        ("*@[fd00::/8]", "cam@[IPv6:fd12::1]", True),
        ("*@[IPv6:fd00::/8]", "cam@[10.0.0.1]", False),
        ('"a@b"@[10.0.0.0/8]', '"a@b"@[10.0.0.1]', True),
        ("*@[10.0.0.0/8]", "cam@[tag:x]", False),
        ("*@shop.example", "x@SHOP.example", True),
        ("*@bücher.example", "x@bücher.example", False),  # names are kept as A-labels
        ("*@xn--bcher-kva.example", "x@bücher.example", True),
    ],
)
def test_address_glob(glob: str, address: str, does: bool) -> None:
    assert AddressGlob(glob).matches(Address.parse(address)) is does
    assert str(AddressGlob(glob)) == glob


def test_the_null_sender_is_in_no_network() -> None:
    assert AddressGlob("<>").matches(None)
    assert AddressGlob("*").matches(None)
    assert not AddressGlob("*@*").matches(None)
    assert not AddressGlob("*@[0.0.0.0/0]").matches(None)


@pytest.mark.parametrize(
    "text",
    [
        "*@[10.0.0.0/33]",
        "*@[10.0.0.1/8]",
        "*@[10.0.0/8]",
        "*@[10.*/8]",
        "*@[10.0.0.0/]",
        "*@[/8]",
        "*@[10.0.0.0/eight]",
        "*@[IPv6:fd00::/129]",
        "*@[IPv6:fd00::1/8]",
        "*@[IPv6:zz::/8]",
    ],
)
def test_a_bad_network_is_said_so(text: str) -> None:
    """It would match nothing, ever."""
    with pytest.raises(ValueError, match=r"."):
        AddressGlob(text)
