"""Addresses and literals against the grammar of RFC 5321 §4.1.2 and §4.1.3, RFC 4291, RFC 5952."""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cost import least_cost
from waypost.errors import AddressError
from waypost.mail.address import (
    Address,
    AddressLiteral,
    Domain,
    GeneralLiteral,
    as_value,
    ipv6_text,
    parse_domain_part,
    parse_ipv6,
    parse_literal,
    render_local_part,
)

# Literals that are one, with the address they mean.

IPV4_LITERALS = [
    ("[192.0.2.1]", "192.0.2.1"),
    ("[0.0.0.0]", "0.0.0.0"),
    ("[255.255.255.255]", "255.255.255.255"),
    ("[10.20.30.40]", "10.20.30.40"),
]
IPV6_FULL = [
    # The examples of RFC 4291 §2.2.
    ("[IPv6:ABCD:EF01:2345:6789:ABCD:EF01:2345:6789]", "abcd:ef01:2345:6789:abcd:ef01:2345:6789"),
    ("[IPv6:2001:DB8:0:0:8:800:200C:417A]", "2001:db8::8:800:200c:417a"),
    ("[IPv6:FF01:0:0:0:0:0:0:101]", "ff01::101"),
    ("[IPv6:0:0:0:0:0:0:0:1]", "::1"),
    ("[IPv6:0:0:0:0:0:0:0:0]", "::"),
    ("[IPv6:2001:0db8:0000:0000:0000:0000:0000:0001]", "2001:db8::1"),
]
IPV6_COMPRESSED = [
    ("[IPv6:2001:DB8::8:800:200C:417A]", "2001:db8::8:800:200c:417a"),
    ("[IPv6:FF01::101]", "ff01::101"),
    ("[IPv6:::1]", "::1"),
    ("[IPv6:::]", "::"),
    ("[IPv6:1::]", "1::"),
    # "::" stands for two groups at least, so six others are the most there may be.
    ("[IPv6:1:2:3:4:5:6::]", "1:2:3:4:5:6::"),
    ("[IPv6:::3:4:5:6:7:8]", "::3:4:5:6:7:8"),
    ("[IPv6:1:2:3::6:7:8]", "1:2:3::6:7:8"),
    ("[IPv6:1:2::7:8]", "1:2::7:8"),
    ("[IPv6:0001::0008]", "1::8"),
]
IPV6_V4_FULL = [
    ("[IPv6:2001:db8:0:0:0:0:192.0.2.33]", "2001:db8::c000:221"),
    ("[IPv6:1:2:3:4:5:6:255.255.255.255]", "1:2:3:4:5:6:ffff:ffff"),
    ("[IPv6:0:0:0:0:0:0:13.1.68.3]", "::d01:4403"),
]
IPV6_V4_COMPRESSED = [
    ("[IPv6:::13.1.68.3]", "::d01:4403"),
    ("[IPv6:64:ff9b::192.0.2.33]", "64:ff9b::c000:221"),
    # At most four groups beside "::" and the dotted quad.
    ("[IPv6:1:2:3:4::192.0.2.1]", "1:2:3:4:0:0:c000:201"),
    ("[IPv6:::3:4:5:6:192.0.2.1]", "0:0:3:4:5:6:c000:201"),
    ("[IPv6:1:2::5:6:192.0.2.1]", "1:2:0:0:5:6:c000:201"),
]
V4_MAPPED = [
    ("[IPv6:::ffff:129.144.52.38]", "129.144.52.38"),
    ("[IPv6:::FFFF:129.144.52.38]", "129.144.52.38"),
    ("[IPv6:0:0:0:0:0:FFFF:129.144.52.38]", "129.144.52.38"),
    ("[IPv6:::ffff:8190:3426]", "129.144.52.38"),
    ("[IPv6:0:0:0:0:0:ffff:8190:3426]", "129.144.52.38"),
]


@pytest.mark.parametrize(("text", "ip"), IPV4_LITERALS)
def test_ipv4_literal_is_its_address(text: str, ip: str) -> None:
    assert parse_literal(text) == AddressLiteral(IPv4Address(ip))


@pytest.mark.parametrize(
    ("text", "ip"), IPV6_FULL + IPV6_COMPRESSED + IPV6_V4_FULL + IPV6_V4_COMPRESSED
)
def test_each_ipv6_form_of_rfc_5321_is_its_address(text: str, ip: str) -> None:
    literal = parse_literal(text)
    assert isinstance(literal, AddressLiteral)
    assert literal.ip == IPv6Address(ip)


@pytest.mark.parametrize(("text", "ip"), V4_MAPPED)
def test_v4_mapped_literal_is_the_ipv4_host(text: str, ip: str) -> None:
    """RFC 4291 §2.5.5.2: the form stands for an IPv4 node."""
    literal = parse_literal(text)
    assert literal == AddressLiteral(IPv4Address(ip))
    assert str(literal) == f"[{ip}]"
    assert hash(literal) == hash(AddressLiteral(IPv4Address(ip)))


@pytest.mark.parametrize("tag", ["IPv6", "ipv6", "IPV6", "iPv6", "IpV6"])
def test_tag_is_read_in_any_case(tag: str) -> None:
    """ABNF strings have no case (RFC 5234 §2.3)."""
    assert parse_literal(f"[{tag}:2001:db8::1]") == AddressLiteral(IPv6Address("2001:db8::1"))


def test_all_spellings_of_an_address_are_one_value() -> None:
    spellings = (
        "[IPv6:2001:db8::1:0:0:1]",
        "[IPv6:2001:DB8:0:0:1::1]",
        "[ipv6:2001:0db8:0000:0000:0001:0000:0000:0001]",
        "[IPV6:2001:db8::1:0:0.0.0.1]",
    )
    values = {parse_literal(text) for text in spellings}
    assert len(values) == 1
    assert {str(value) for value in values} == {"[IPv6:2001:db8::1:0:0:1]"}
    addresses = {Address.parse(f"ann@{text}") for text in spellings}
    assert len(addresses) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "]",
        "[]",
        "192.0.2.1",
        "[192.0.2.1",
        "192.0.2.1]",
        "[[192.0.2.1]]",
        "[192.0.2.1]]",
        "[192.0.2.1] ",
        "[192.0.2]",
        "[192.0.2.1.5]",
        "[192.0.2.1.]",
        "[.192.0.2.1]",
        "[192..2.1]",
        "[192.0.2.]",
        "[256.0.2.1]",
        "[192.0.2.256]",
        "[192.0.2.999]",
        "[192.0.2.1000]",
        "[+192.0.2.1]",
        "[-1.0.2.1]",
        "[192.0.2.1/32]",
        "[192.0.2.1:25]",
        "[192.0.2.1%eth0]",
        # Spellings that inet_aton knows, and nobody else means alike.
        "[127.1]",
        "[127.0.1]",
        "[2130706433]",
        "[0x7f.0.0.1]",
        "[0x7f000001]",
        "[017700000001]",
        "[0177.0.0.1]",
        "[127.0.0.01]",
        "[127.0.0.00]",
        "[010.1.1.1]",
        "[192.000.2.1]",
        # Digits that are none in ASCII.
        "[１２７.0.0.1]",
        "[127。0。0。1]",
        "[١٢٧.0.0.1]",
        "[127.0.0.¹]",
        "[ 192.0.2.1]",
        "[192.0.2.1 ]",
        "[192. 0.2.1]",
        "[192.0.2.1\t]",
        "[192.0.2.1\r\n]",
        "[192.0.2.1\0]",
        "[192.0.2.1\n",
    ],
)
def test_what_is_no_ipv4_literal_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse_literal(text)


@pytest.mark.parametrize(
    "text",
    [
        "[IPv6]",
        "[IPv6:]",
        "[IPv6::]",
        "[IPv6::1]",
        "[IPv6::::]",
        "[IPv6:::::]",
        "[IPv6:1]",
        "[IPv6:1:2:3:4:5:6:7]",
        "[IPv6:1:2:3:4:5:6:7:8:9]",
        "[IPv6:1:2:3:4:5:6:7:]",
        "[IPv6::2:3:4:5:6:7:8]",
        "[IPv6:1::2::3]",
        "[IPv6:1:::3]",
        # "::" for one group only, or for none (RFC 5321 §4.1.3, RFC 5952 §4.2.2).
        "[IPv6:1:2:3:4:5:6:7::]",
        "[IPv6:::2:3:4:5:6:7:8]",
        "[IPv6:1:2:3::5:6:7:8]",
        "[IPv6:1:2:3:4::5:6:7:8]",
        "[IPv6:1:2:3:4:5::192.0.2.1]",
        "[IPv6:::2:3:4:5:6:192.0.2.1]",
        # The dotted quad is last, and whole, and without leading zeros.
        "[IPv6:1:2:3:4:5:6:7:192.0.2.1]",
        "[IPv6:1:2:3:4:5:192.0.2.1]",
        "[IPv6:192.0.2.1::]",
        "[IPv6:::192.0.2.1:1]",
        "[IPv6:192.0.2.1]",
        "[IPv6:::192.0.2]",
        "[IPv6:::192.0.2.1.1]",
        "[IPv6:::192.0.2.256]",
        "[IPv6:::192.0.02.1]",
        "[IPv6:::ffff:192.0.2.01]",
        "[IPv6:::ffff:１92.0.2.1]",
        # Groups have one to four hexadecimal digits.
        "[IPv6:12345::]",
        "[IPv6:00001::]",
        "[IPv6:2001:db8::0db80]",
        "[IPv6:g::1]",
        "[IPv6:２001:db8::1]",
        "[IPv6:2001:db8::١]",
        "[IPv6:0x1::1]",
        "[IPv6:-1::1]",
        "[IPv6:+1::1]",
        "[IPv6:1_0::1]",
        # Nothing else belongs to an address.
        "[IPv6:fe80::1%eth0]",
        "[IPv6:fe80::1%25eth0]",
        "[IPv6:fe80::1%]",
        "[IPv6:2001:db8::/32]",
        "[IPv6:[2001:db8::1]]",
        "[IPv6: 2001:db8::1]",
        "[IPv6:2001:db8::1 ]",
        "[IPv6:2001:db8:: 1]",
        "[IPv6:2001:db8::1\r\n]",
        "[IPv6 :2001:db8::1]",
        "[ IPv6:2001:db8::1]",
        "[IPv6:2001:db8::1]:25",
    ],
)
def test_what_is_no_ipv6_literal_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse_literal(text)


@pytest.mark.parametrize(
    "text",
    [
        "[2001:db8::1]",
        "[::1]",
        "[::]",
        "[::ffff:192.0.2.1]",
        "[1:2:3:4:5:6:7:8]",
        "[fe80::1%eth0]",
        "[2001:DB8::A]",
    ],
)
def test_ipv6_without_its_tag_is_refused(text: str) -> None:
    """Never a general literal by chance: "2001" could pass for a tag."""
    with pytest.raises(AddressError):
        parse_literal(text)


@pytest.mark.parametrize(
    ("text", "tag", "content"),
    [
        ("[x400:c=us]", "x400", "c=us"),
        ("[tag:a:b:c]", "tag", "a:b:c"),
        ("[t:!]", "t", "!"),
        ("[X-1-y:~^Z!{}]", "X-1-y", "~^Z!{}"),
        ("[9:9]", "9", "9"),
        # Ldh-str = *( ALPHA / DIGIT / "-" ) Let-dig
        ("[-x:y]", "-x", "y"),
    ],
)
def test_general_literal_is_kept_as_it_is(text: str, tag: str, content: str) -> None:
    literal = parse_literal(text)
    assert literal == GeneralLiteral(tag, content)
    assert str(literal) == text


@pytest.mark.parametrize(
    "text",
    [
        "[x-:y]",
        "[-:y]",
        "[:y]",
        "[tag:]",
        "[t_g:y]",
        "[t.g:y]",
        "[t g:y]",
        "[täg:y]",
        "[tag:a b]",
        "[tag:a\\b]",
        "[tag:a[b]",
        "[tag:a]b]",
        "[tag:ä]",
        "[tag:a\x7f]",
        "[tag:a\r\nb]",
        "[tag:a\0]",
    ],
)
def test_what_is_no_general_literal_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse_literal(text)


def test_a_literal_is_no_longer_than_a_domain_may_be() -> None:
    """RFC 5321 §4.5.3.1.2: 255 octets, for a domain name or number."""
    assert len(str(parse_literal(f"[tag:{'x' * 249}]"))) == 255
    with pytest.raises(AddressError):
        parse_literal(f"[tag:{'x' * 250}]")


# Canonical form.


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        # The cases of RFC 5952 §4.
        ("2001:0db8::0001", "2001:db8::1"),
        ("2001:db8:0:0:0:0:2:1", "2001:db8::2:1"),
        ("2001:db8::0:0:1", "2001:db8::1"),
        ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
        ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"),
        ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        ("2001:db8:aaaa:bbbb:cccc:dddd:eeee:aaAA", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:aaaa"),
        ("0:0:0:0:0:0:0:0", "::"),
        ("1:0:0:0:0:0:0:0", "1::"),
    ],
)
def test_ipv6_literal_is_printed_as_rfc_5952_says(text: str, canonical: str) -> None:
    assert str(parse_literal(f"[IPv6:{text}]")) == f"[IPv6:{canonical}]"


def rfc_5952(number: int) -> str:
    """RFC 5952 §4, written down from its text."""
    groups = [(number >> shift) & 0xFFFF for shift in range(112, -1, -16)]
    best = (0, 0)  # length and start of the longest run of zeros, the first of equals
    for start in range(8):
        length = 0
        while start + length < 8 and groups[start + length] == 0:
            length += 1
        if length > best[0]:
            best = (length, start)
    words = [f"{group:x}" for group in groups]
    length, start = best
    if length < 2:
        return ":".join(words)
    return f"{':'.join(words[:start])}::{':'.join(words[start + length :])}"


groups_with_zeros = st.lists(
    st.one_of(st.just(0), st.integers(0, 0xFFFF), st.sampled_from([1, 0xFFFF, 0xDB8])),
    min_size=8,
    max_size=8,
)


def as_number(groups: list[int]) -> int:
    number = 0
    for group in groups:
        number = number << 16 | group
    return number


@given(groups_with_zeros)
def test_canonical_form_of_any_ipv6_address(groups: list[int]) -> None:
    number = as_number(groups)
    ip = IPv6Address(number)
    literal = AddressLiteral(ip)
    if number >> 32 == 0xFFFF:
        assert str(literal) == f"[{IPv4Address(number & 0xFFFF_FFFF)}]"
    else:
        assert str(literal) == f"[IPv6:{rfc_5952(number)}]"
    assert parse_literal(str(literal)) == literal


@st.composite
def ipv6_spellings(draw: st.DrawFn) -> tuple[int, str]:
    """An address, and one way RFC 5321 §4.1.3 lets it be written."""
    groups = draw(groups_with_zeros)
    number = as_number(groups)
    words = []
    for group in groups:
        word = f"{group:x}".zfill(draw(st.integers(1, 4)))
        words.append(word.upper() if draw(st.booleans()) else word)
    if draw(st.booleans()):
        words[6:] = [str(IPv4Address(number & 0xFFFF_FFFF))]
    zeros = [
        (start, end)
        for start in range(len(words))
        for end in range(start + 2, len(words) + 1)
        if all(word.strip("0") == "" for word in words[start:end])
    ]
    if zeros and draw(st.booleans()):
        start, end = draw(st.sampled_from(zeros))
        return number, ":".join(words[:start]) + "::" + ":".join(words[end:])
    return number, ":".join(words)


@given(ipv6_spellings(), st.sampled_from(["IPv6", "ipv6", "IPV6"]))
def test_every_spelling_the_grammar_allows_is_read(spelling: tuple[int, str], tag: str) -> None:
    number, text = spelling
    literal = parse_literal(f"[{tag}:{text}]")
    assert literal == AddressLiteral(IPv6Address(number))


@given(st.ip_addresses())
def test_a_value_is_itself_once_unmapped(ip: IPv4Address | IPv6Address) -> None:
    assert as_value(as_value(ip)) == as_value(ip)
    assert parse_literal(str(AddressLiteral(ip))) == AddressLiteral(ip)


# Mailboxes.


@pytest.mark.parametrize(
    ("text", "local_part", "domain"),
    [
        ("ann@plant.example", "ann", "plant.example"),
        ("a@b", "a", "b"),
        ("a.b.c@d.e.f", "a.b.c", "d.e.f"),
        ("!#$%&'*+-/=?^_`{|}~@x.example", "!#$%&'*+-/=?^_`{|}~", "x.example"),
        ("a+b@1.example", "a+b", "1.example"),
        ("a%b@c", "a%b", "c"),
        ("b!a@c", "b!a", "c"),
        ("ANN@Plant.EXAMPLE", "ANN", "plant.example"),
        ('""@x.example', "", "x.example"),
        ('"a b"@x.example', "a b", "x.example"),
        ('"a@b"@x.example', "a@b", "x.example"),
        ('"a\\"b\\\\c"@x.example', 'a"b\\c', "x.example"),
        ('"\\a\\ \\@"@x.example', "a @", "x.example"),
        ('"a>b<c"@x.example', "a>b<c", "x.example"),
        ('".a..b."@x.example', ".a..b.", "x.example"),
        ("a@123", "a", "123"),
        ("a@1.2.3.4", "a", "1.2.3.4"),
        ("a@a-b.c--d", "a", "a-b.c--d"),
        # RFC 6531 §3.3: UTF-8 in atoms and quoted strings, U-labels in domains.
        ("jürgen@plant.example", "jürgen", "plant.example"),
        ('"jürgen b"@plant.example', "jürgen b", "plant.example"),
        ("用户@例え.jp", "用户", "xn--r8jz45g.jp"),
        ("😀@x.example", "😀", "x.example"),
        ("a@bücher.example", "a", "xn--bcher-kva.example"),
    ],
)
def test_mailbox_is_read(text: str, local_part: str, domain: str) -> None:
    address = Address.parse(text)
    assert address.local_part == local_part
    assert str(address.domain) == domain


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "a",
        "a@",
        "@b",
        "a@b@c",
        "a b@c",
        " a@b",
        "a@b ",
        "a @b",
        "a@ b",
        ".a@b",
        "a.@b",
        "a..b@c",
        "a,b@c",
        "a:b@c",
        "a;b@c",
        "a<b@c",
        "(comment)a@b",
        "a(comment)@b",
        "a@b(comment)",
        "<a@b>",
        "Ann <a@b>",
        '"a',
        '"a"',
        '"a@b',
        '"a"b@c',
        'a"b"@c',
        '"a".b@c',
        '"a"b"@c',
        '"a\\"@b',
        '"a\r\nb"@c',
        '"a\nb"@c',
        '"a\\\nb"@c',
        '"a\\\r\n b"@c',
        '"a\0b"@c',
        '"a\\\0b"@c',
        '"a\tb"@c',
        '"a\x7fb"@c',
        '"a\\\x7f"@c',
        '"a\\é"@c',
        "a\r\nb@c",
        "a\0@c",
        "a\x1b@c",
        "a\x7f@c",
        "a@b\r\n",
        "a@b\n",
        "a@b\0",
        "a@b..c",
        "a@.b",
        "a@b.",
        "a@-b",
        "a@b-",
        "a@b-.c",
        "a@b_c",
        "a@b!c",
        "a@b/c",
        "a@b%c",
        "a@b:25",
        "a@1.2.3.4:25",
        "a@b,c@d",
        "a@b;ls",
        "a@$(ls)",
        "a@[1.2.3.4].",
        "a@[1.2.3.4]b",
        "a@b[1.2.3.4]",
        "a@[1.2.3.4",
        "a@1.2.3.4]",
        "a@::1",
        "a@2001:db8::1",
        "a@ü..example",
        "a@\u200b.example",
        "a@ü_b.example",
    ],
)
def test_what_is_no_mailbox_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        Address.parse(text)


@pytest.mark.parametrize(
    "text",
    ["a@１２７.0.0.1", "a@127。0。0。1", "a@１０．０．０．１", "a@①②⑦.0.0.1", "a@0１.2.3.4"],
)
def test_look_alike_digits_never_become_an_ip_address(text: str) -> None:
    """One spelling of an address, not what compatibility mapping makes of it."""
    with pytest.raises(AddressError):
        Address.parse(text)


@pytest.mark.parametrize(
    "text",
    ["\ud800@b.example", '"\udfff"@b.example', "a@\ud800.example", "é\ud800@b", "a@[x:\ud800]"],
)
def test_a_lone_surrogate_is_refused(text: str) -> None:
    """No UTF-8 (RFC 3629 §3) stands for it; arguments of a command line can hold one."""
    with pytest.raises(AddressError):
        Address.parse(text)


def test_sizes_are_in_octets_and_the_limits_belong_to_them() -> None:
    """RFC 5321 §4.5.3.1.1 and .2, RFC 1035 §2.3.4, RFC 6531 §3.3."""
    assert Address.parse("x" * 64 + "@b").local_part == "x" * 64
    with pytest.raises(AddressError):
        Address.parse("x" * 65 + "@b")
    assert Address.parse('"' + "x" * 62 + '"@b').local_part == "x" * 62
    with pytest.raises(AddressError):
        Address.parse('"' + "x" * 63 + '"@b')
    assert Address.parse("é" * 32 + "@b").local_part == "é" * 32
    with pytest.raises(AddressError):
        Address.parse("é" * 32 + "x@b")
    label = "x" * 63
    domain = f"{label}.{label}.{label}.{label}"
    assert len(domain) == 255
    assert str(Address.parse(f"a@{domain}").domain) == domain
    with pytest.raises(AddressError):
        Address.parse(f"a@{label}.{label}.{label}.{label[:-2]}.x.y")
    with pytest.raises(AddressError):
        Address.parse(f"a@{label}x.example")


def test_local_part_is_compared_exactly_and_domain_without_case() -> None:
    """RFC 5321 §2.4."""
    assert Address.parse("ann@Plant.Example") == Address.parse("ann@pLANT.eXAMPLE")
    assert Address.parse("Ann@plant.example") != Address.parse("ann@plant.example")
    assert hash(Address.parse("a@X.example")) == hash(Address.parse("a@x.EXAMPLE"))


def test_quoting_makes_no_other_mailbox() -> None:
    """RFC 5321 §4.1.2: the quotes and backslashes are no part of the name."""
    assert Address.parse('"ann"@x') == Address.parse("ann@x") == Address.parse('"a\\nn"@x')
    assert str(Address.parse('"a\\nn"@x')) == "ann@x"


def test_u_label_and_a_label_are_one_domain() -> None:
    """RFC 5891 §3.1."""
    one = Domain.parse("Bücher.example")
    assert one == Domain.parse("XN--BCHER-KVA.EXAMPLE")
    assert one.ascii == "xn--bcher-kva.example"
    assert one.unicode == "bücher.example"


def test_a_name_is_an_ip_only_when_asked() -> None:
    domain = Domain.parse("192.0.2.1")
    assert domain.as_ip() == IPv4Address("192.0.2.1")
    assert parse_domain_part("192.0.2.1") == domain
    for name in ("192.0.2.01", "192.0.2.256", "192.0.2", "0x7f.0.0.1", "plant.example", "127.1"):
        assert Domain.parse(name).as_ip() is None


def test_error_names_place_and_section() -> None:
    with pytest.raises(AddressError) as caught:
        Address.parse("ann@[192.0.2.256]")
    assert caught.value.offset == len("ann@[")
    assert caught.value.section == "RFC 5321 §4.1.3"
    with pytest.raises(AddressError) as caught:
        Address.parse("ann smith@x")
    assert caught.value.offset == len("ann")


@pytest.mark.parametrize(
    ("local_part", "rendered"),
    [
        ("ann", "ann"),
        ("a.b", "a.b"),
        ("", '""'),
        ("a b", '"a b"'),
        (".a", '".a"'),
        ("a..b", '"a..b"'),
        ('a"b', '"a\\"b"'),
        ("a\\b", '"a\\\\b"'),
        ("a@b", '"a@b"'),
        ("é", "é"),
    ],
)
def test_local_part_is_quoted_where_it_must_be(local_part: str, rendered: str) -> None:
    """RFC 5321 §4.1.2: the Dot-string form SHOULD be used where it can."""
    assert render_local_part(local_part) == rendered


# Properties.

ATEXT = "abzABZ019!#$%&'*+-/=?^_`{|}~éü用😀"
QTEXT = "".join(chr(code) for code in range(32, 127)) + "é用"
atoms = st.text(ATEXT, min_size=1, max_size=6)
dot_strings = st.lists(atoms, min_size=1, max_size=3).map(".".join)
quoted_strings = st.text(QTEXT, max_size=12).map(
    lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
)
labels = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9]{0,5}[A-Za-z0-9])?", fullmatch=True)
names = st.lists(labels, min_size=1, max_size=4).map(".".join)
literals = st.one_of(
    st.ip_addresses(v=4).map(lambda ip: f"[{ip}]"),
    ipv6_spellings().map(lambda spelling: f"[IPv6:{spelling[1]}]"),
    st.from_regex(r"\[[A-Za-z][A-Za-z0-9]{0,3}:[!-Z^-~]{1,9}\]", fullmatch=True).filter(
        lambda text: not text.lower().startswith("[ipv6:") and "::" not in text
    ),
)
mailboxes = st.builds(
    lambda local, domain: f"{local}@{domain}",
    st.one_of(dot_strings, quoted_strings),
    st.one_of(names, literals),
)


@given(mailboxes)
def test_what_the_grammar_allows_is_read_and_printed_back(text: str) -> None:
    address = Address.parse(text)
    assert Address.parse(str(address)) == address
    assert str(Address.parse(str(address))) == str(address)
    assert len(str(address)) <= len(text) + len("[IPv6:]")  # canonical is not longer


anything = st.one_of(
    st.text(max_size=40),
    st.text(st.characters(), max_size=20),  # surrogates too
    st.text('[]:.%@"\\<>()IPv6abcf0123456789 \r\n\0\x7fé１。\ud800', max_size=40),
    st.builds(lambda a, b: f"a@[{a}:{b}]", st.text(max_size=6), st.text(max_size=20)),
    st.builds(lambda a: f"a@{a}", st.text(max_size=40)),
)


@given(anything)
def test_any_text_is_an_address_or_an_address_error(text: str) -> None:
    for parse in (Address.parse, Domain.parse, parse_literal, parse_domain_part):
        offset = 0
        value: Address | Domain | AddressLiteral | GeneralLiteral | None = None
        try:
            value = parse(text)
        except AddressError as error:
            offset = error.offset
        assert 0 <= offset <= max(len(text), 1)
        if value is not None:
            rendered = str(value)
            rendered.encode()
            assert not set(rendered) & set("\r\n\0")
            assert parse(rendered) == value
            if isinstance(value, Domain):
                assert value.unicode


# Cost.

LONG = {
    "atoms": lambda n: "a" * n + "@b",
    "dots": lambda n: "a." * (n // 2) + "@b",
    "two dots": lambda n: "a" * (n - 4) + "..@b",
    "open quote": lambda n: '"' + "\\a" * (n // 2),
    "quotes": lambda n: '"' * n,
    "backslashes": lambda n: '"' + "\\" * n + '"@b',
    "domain": lambda n: "a@" + "a." * (n // 2),
    "hyphens": lambda n: "a@a" + "-" * n,
    "unicode local part": lambda n: "é" * n + "@b",
    "unicode domain": lambda n: "a@" + "é" * n,
    "unicode labels": lambda n: "a@" + "é." * (n // 2),
    "combining marks": lambda n: "a@e" + "\u0301" * n,
    "literal of colons": lambda n: "a@[IPv6:" + ":" * n + "]",
    "literal of groups": lambda n: "a@[IPv6:" + "0:" * (n // 2) + ":]",
    "literal of zeros": lambda n: "a@[IPv6:" + "0" * n + "::]",
    "literal of dots": lambda n: "a@[" + "1." * (n // 2) + "]",
    "literal of digits": lambda n: "a@[" + "1" * n + ".0.0.1]",
    "untagged literal": lambda n: "a@[" + "1:" * (n // 2) + "]",
    "general literal": lambda n: "a@[tag:" + "x" * n + "]",
    "tag of hyphens": lambda n: "a@[" + "-" * n + ":x]",
    "at signs": lambda n: "@" * n,
    "brackets": lambda n: "a@" + "[" * n,
    "percents": lambda n: "a" + "%b" * (n // 2) + "@c",
}


def cost(text: str) -> float:

    def five_times() -> None:
        for _ in range(5):
            with contextlib.suppress(AddressError):
                Address.parse(text)

    return least_cost(five_times)


@pytest.mark.parametrize("shape", LONG)
def test_cost_grows_with_the_length_and_not_its_square(shape: str) -> None:
    """Ten times the length may cost ten times as much; a square would be a hundred."""
    small, large = (cost(LONG[shape](size)) for size in (10_000, 100_000))
    assert large < 40 * small


@given(st.ip_addresses(v=6))
def test_ipv6_texts_are_those_of_rfc_5952(ip: IPv6Address) -> None:
    # Python's text is that form but for v4-mapped addresses, which are IPv4 here.
    if ip.ipv4_mapped is None:
        assert ipv6_text(ip) == str(ip)


@given(st.lists(st.sampled_from(["0", "0000", "1", "db8", "FFFF"]), min_size=8, max_size=8))
def test_zeros_are_shortened_where_rfc_5952_says(groups: list[str]) -> None:
    ip = IPv6Address(":".join(groups))
    if ip.ipv4_mapped is None:
        assert ipv6_text(ip) == str(ip)
    assert parse_ipv6(":".join(groups)) == ip
