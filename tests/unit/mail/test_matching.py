"""Which addresses a policy takes for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.mail.address import Address
from waypost.mail.matching import EXACT, FOLDED, LIKELY_SAME, PROVIDERS, Policy, key, same


@pytest.mark.parametrize(
    ("one", "other", "policy", "expected"),
    [
        ("ann@Example.com", "ann@example.COM", EXACT, True),
        ("Ann@example.com", "ann@example.com", EXACT, False),
        ('"ann"@example.com', "ann@example.com", EXACT, True),
        ("ann@[IPv6:2001:DB8::1]", "ann@[ipv6:2001:db8:0:0::1]", EXACT, True),
        ("ann@[IPv6:::ffff:192.0.2.1]", "ann@[192.0.2.1]", EXACT, True),
        ("u\u0308@example.com", "\u00fc@example.com", EXACT, True),
        ("Ann@example.com", "ann@example.com", FOLDED, True),
        ("STRASSE@example.com", "straße@example.com", FOLDED, True),
        ("ann+x@example.com", "ann@example.com", FOLDED, False),
        ("ann+x@example.com", "ANN@example.com", LIKELY_SAME, True),
        ("+x@example.com", "+y@example.com", LIKELY_SAME, False),
        ("a.n.n@example.com", "ann@example.com", LIKELY_SAME, False),
        ("a.n.n+x@gmail.com", "ann@googlemail.com", LIKELY_SAME, True),
        ("ann-x@yahoo.com", "ann@yahoo.com", LIKELY_SAME, True),
        ("ann+x@yahoo.com", "ann@yahoo.com", LIKELY_SAME, False),
        ("a.n.n@example.com", "ann@example.com", Policy(ignores_dots=True), True),
    ],
)
def test_policies(one: str, other: str, policy: Policy, expected: bool) -> None:
    assert same(Address.parse(one), Address.parse(other), policy) is expected


@given(st.text("aB.+-é", min_size=1, max_size=12), st.sampled_from(["x.test", *PROVIDERS]))
def test_a_key_is_its_own_key(local_part: str, domain: str) -> None:
    for policy in (EXACT, FOLDED, LIKELY_SAME):
        first = key(Address(local_part, Address.parse(f"x@{domain}").domain), policy)
        assert key(Address.parse(first), policy) == first
