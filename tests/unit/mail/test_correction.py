"""What was probably meant: always an address, and never a change of whom it is for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.errors import AddressError
from waypost.mail.address import Address
from waypost.mail.correction import suggest
from waypost.mail.header_address import parse_mailbox


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("user@10.0.0.5", "user@[10.0.0.5]"),
        ("user@2001:db8::1", "user@[IPv6:2001:db8::1]"),
        ("user@[2001:db8::1]", "user@[IPv6:2001:db8::1]"),
        ("user@[IPv6:2001:DB8::1%eth0]", "user@[IPv6:2001:db8::1]"),
        ("user@[IPv4:10.0.0.5]", "user@[10.0.0.5]"),
        ("user@[10.0.0.05]", "user@[10.0.0.5]"),
        ("user@[10.0.0.5", "user@[10.0.0.5]"),
        ("user@[ 10.0.0.5 ]", "user@[10.0.0.5]"),
        ("user@[10.0.0.5/24]", "user@[10.0.0.5]"),
        ("user@[IPv6:1:2:3:4:5:6:7::]", "user@[IPv6:1:2:3:4:5:6:7:0]"),
        ("user@example.com.", "user@example.com"),
        ("user@example..com", "user@example.com"),
        (" user@example.com\n", "user@example.com"),
        ("<user@example.com>", "user@example.com"),
        ("mailto:user@example.com", "user@example.com"),
        ("user\uff20example.com", "user@example.com"),
        ("first last@example.com", '"first last"@example.com'),
        ("a..b@example.com", '"a..b"@example.com'),
        ("user", None),
        ("user@", None),
        ("@example.com", None),
        ("a@b@example.com", None),
        ("user@[10.0.0.256]", None),
        ("user@" + "a" * 600, None),
    ],
)
def test_suggestions(text: str, meant: str | None) -> None:
    assert suggest(text) == meant


def test_refusals_carry_them() -> None:
    for parse in (Address.parse, parse_mailbox):
        with pytest.raises(AddressError) as caught:
            parse("a..b@example.com")
        assert caught.value.suggestion == '"a..b"@example.com'
    fault = parse_mailbox("user@[2001:db8::1]").fault
    assert fault is not None
    assert fault.suggestion == "user@[IPv6:2001:db8::1]"


@given(st.text(max_size=40) | st.text('ab@.[]:0123456789 "%/', max_size=30))
def test_a_suggestion_is_an_address_and_needs_no_other(text: str) -> None:
    meant = suggest(text)
    if meant is not None:
        assert str(Address.parse(meant)) == meant
