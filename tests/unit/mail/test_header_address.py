"""Addresses of header fields: RFC 5322 §3.4 and §4.4, RFC 6532; forms from RFC 5322 appendix A."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.cost import least_cost
from waypost.errors import AddressError
from waypost.mail.address import Address
from waypost.mail.header_address import (
    Group,
    Mailbox,
    parse_address_list,
    parse_mailbox,
    render_phrase,
)

SMTP, UTF8, HEADER, OBSOLETE = "smtp", "smtputf8", "header", "obsolete"


def level_of(mailbox: Mailbox) -> str:
    levels = mailbox.levels
    if levels.rfc5321:
        return SMTP
    if levels.rfc6531:
        return UTF8
    return OBSOLETE if levels.obsolete else HEADER


@pytest.mark.parametrize(
    ("text", "address", "level"),
    [
        ("ann@example.com", "ann@example.com", SMTP),
        ("ann@[192.0.2.1]", "ann@[192.0.2.1]", SMTP),
        ("ann@[ipv6:2001:DB8:0::1]", "ann@[IPv6:2001:db8::1]", SMTP),
        ("ann@[x-tag:text]", "ann@[x-tag:text]", SMTP),
        ('"ann b"@example.com', '"ann b"@example.com', SMTP),
        ('"ann"@example.com', "ann@example.com", SMTP),
        ('""@example.com', '""@example.com', SMTP),
        ("añn@example.com", "añn@example.com", UTF8),
        ("ann@bücher.example", "ann@xn--bcher-kva.example", UTF8),
        ("Ann <ann@example.com>", "ann@example.com", HEADER),
        ("<ann@example.com>", "ann@example.com", HEADER),
        (" ann@example.com", "ann@example.com", HEADER),
        ("(a)ann(b)@(c)example.com(d)", "ann@example.com", HEADER),
        ("ann@[ 192.0.2.1 ]", "ann@[192.0.2.1]", HEADER),
        ("ann . b@example.com", "ann.b@example.com", OBSOLETE),
        ('"ann"."b"@example.com', "ann.b@example.com", OBSOLETE),
        ("ann@example . com", "ann@example.com", OBSOLETE),
        ("John Q. Public <ann@example.com>", "ann@example.com", OBSOLETE),
        ("<@a.example,@b.example:ann@example.com>", "ann@example.com", OBSOLETE),
        ('"a\\\x07b"@example.com', None, OBSOLETE),
        ('"a\tb"@example.com', None, HEADER),
        ("ann@under_score.example", None, HEADER),
        ("ann@[some text]", None, HEADER),
    ],
)
def test_texts_and_their_levels(text: str, address: str | None, level: str) -> None:
    mailbox = parse_mailbox(text)
    assert (None if mailbox.address is None else str(mailbox.address)) == address
    assert (mailbox.fault is None) == (address is not None)
    assert level_of(mailbox) == level


@pytest.mark.parametrize(
    ("text", "code", "offset"),
    [
        ("", "syntax.local_empty", 0),
        ("ann", "syntax.no_at", 3),
        ("@example.com", "syntax.local_empty", 0),
        ("ann@", "syntax.no_domain", 4),
        (".ann@example.com", "syntax.dot_start", 0),
        ("ann.@example.com", "syntax.dot_end", 3),
        ("a..n@example.com", "syntax.dot_double", 2),
        ("ann@.example.com", "syntax.dot_start", 4),
        ("ann@example..com", "syntax.dot_double", 12),
        ("ann@example.com.", "syntax.dot_end", 15),
        ("a n@example.com", "syntax.bad_char", 2),
        ("a\x00n@example.com", "syntax.bad_char", 1),
        ('"ann@example.com', "syntax.unclosed_quote", 0),
        ("ann(@example.com", "syntax.unclosed_comment", 3),
        ("ann@[192.0.2.1", "syntax.unclosed_literal", 4),
        ("ann@[192.0.2.1]x", "syntax.bad_char", 15),
        ("<ann@example.com", "syntax.bad_char", 16),
        ("ann@example.com, bob@example.com", "syntax.bad_char", 15),
        ("ann@b@example.com", "syntax.bad_char", 5),
        ("ann\r\n@example.com", "syntax.bad_char", 3),
        ("ann\r@example.com", "syntax.bad_char", 3),
    ],
)
def test_refusals_say_what_and_where(text: str, code: str, offset: int) -> None:
    with pytest.raises(AddressError) as caught:
        parse_mailbox(text)
    assert (caught.value.code, caught.value.offset) == (code, offset)
    assert "RFC" in caught.value.section


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("ann@[192.0.2.256]", "literal.bad_ipv4"),
        ("ann@[192.0.2.01]", "literal.ambiguous_octet"),
        ("ann@[192.0.2.0/24]", "literal.prefix_length"),
        ("ann@[IPv6:fe80::1%eth0]", "literal.zone_id"),
        ("ann@[IPv6:2001:db8::/64]", "literal.prefix_length"),
        ("ann@[IPv6::]", "literal.bad_ipv6"),
        ("ann@[2001:db8::1]", "literal.untagged_ipv6"),
        ("a" * 65 + "@example.com", "syntax.too_long_local"),
        ("ann@" + "a" * 64 + ".example", "syntax.too_long_label"),
        ("ann@" + "a." * 127 + "com", "syntax.too_long_domain"),
        ("a" * 64 + "@" + "a" * 63 + "." + "b" * 63 + "." + "c" * 63, "syntax.too_long_path"),
        ("ann@-a.example", "syntax.bad_char"),
        ('"a\x01b"@example.com', "syntax.not_5321_only_5322"),
    ],
)
def test_what_can_be_read_but_not_sent_to_has_its_fault(text: str, code: str) -> None:
    mailbox = parse_mailbox(text)
    assert mailbox.address is None
    assert mailbox.fault is not None
    assert mailbox.fault.code == code


def test_names_comments_and_routes_are_kept() -> None:
    mailbox = parse_mailbox(
        '"Joe \\"J\\" Q." (he (the one)) <@a.example,,@b.example : joe (x) @ [192.0.2.1]>'
    )
    assert mailbox.display_name == 'Joe "J" Q.'
    assert mailbox.comments == ("he (the one)", "x")
    assert [str(host) for host in mailbox.route] == ["a.example", "b.example"]
    assert str(mailbox) == '"Joe \\"J\\" Q." <joe@[192.0.2.1]>'


def test_encoded_words_are_decoded() -> None:
    assert parse_mailbox("=?utf-8?q?J=C3=B6rg?= <j@x.example>").display_name == "Jörg"
    assert parse_mailbox("=?nonsense?q?a?= <j@x.example>").display_name == "=?nonsense?q?a?="


def test_lists_and_groups() -> None:
    """RFC 5322 appendices A.1.3 and A.6.1 in shape."""
    found = parse_address_list(
        "Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>, ,"
        "A Group:Ed Jones <joe@where.test>,john@one.test; , Undisclosed: (nobody) ;"
    )
    pete, group, nobody = found
    assert isinstance(pete, Mailbox)
    assert pete.comments == ("A nice ) chap", "his account", "his host")
    assert isinstance(group, Group)
    assert [str(one.address) for one in group.mailboxes] == ["joe@where.test", "john@one.test"]
    assert str(group) == "A Group: Ed Jones <joe@where.test>, john@one.test;"
    assert nobody == Group("Undisclosed", ())


@pytest.mark.parametrize(
    "text", ["", ",", "a@x.test b@x.test", "G: a@x.test", "G: H: a@x.test;;", ": a@x.test;"]
)
def test_lists_that_are_none(text: str) -> None:
    with pytest.raises(AddressError):
        parse_address_list(text)


WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20)
LOCAL_PARTS = WORDS.filter(lambda text: len(text.encode()) < 20)
DOMAINS = st.one_of(
    st.from_regex(r"\A[a-z0-9]{1,10}(\.[a-z0-9]{1,10}){0,3}\Z"),
    st.ip_addresses(v=4).map(lambda ip: f"[{ip}]"),
    st.ip_addresses(v=6).map(lambda ip: f"[IPv6:{ip}]"),
)


@given(LOCAL_PARTS, DOMAINS)
def test_what_is_rendered_is_read_back(local_part: str, domain: str) -> None:
    try:
        address = Address.parse(f"x@{domain}")
    except AddressError:
        return  # an IPv6 text that stands for one group of zeros
    address = Address(local_part, address.domain)
    assert Address.parse(str(address)) == address
    mailbox = parse_mailbox(str(address))
    assert mailbox.address == address
    assert mailbox.levels.rfc6531


@given(WORDS.filter(lambda text: text.strip() == text and text), LOCAL_PARTS, DOMAINS)
@example("=?utf-8?q?a?=", "x", "example.com")
def test_names_are_read_back(name: str, local_part: str, domain: str) -> None:
    rendered = f"{render_phrase(name)} <{Address(local_part, Address.parse('x@a').domain)}>"
    again = parse_mailbox(rendered)
    if "=?" not in name:
        assert again.display_name == name
    assert str(parse_mailbox(str(again))) == str(again)


@given(st.text(max_size=60) | st.text('@.<>()[]",:;\\ \t\r\na\0é', max_size=40))
@example('"\\')
@example("(\\")
@example("[\\")
def test_no_text_does_harm(text: str) -> None:
    for parse in (parse_mailbox, parse_address_list):
        fault: AddressError | None = None
        try:
            assert parse(text)
        except AddressError as error:
            fault = error
        if fault is not None:
            assert 0 <= fault.offset <= len(text)
            assert fault.code.startswith(("syntax.", "literal.", "dns."))


HUGE = [
    ("open comments", "(", ""),
    ("comments", "(a)", "ann@example.com"),
    ("nested", "(", ")"),
    ("quotes", '"', "@example.com"),
    ("quoted words", '"a".', "b@example.com"),
    ("escapes", "\\", ""),
    ("brackets", "[", "]"),
    ("dots", "a.", "b@example.com"),
    ("at signs", "a@", "b"),
    ("encoded words", "=?a?q?b", " <ann@example.com>"),
    ("folds", "\r\n ", "ann@example.com"),
    ("groups", "G:", ";"),
    ("commas", ",", "ann@example.com"),
    ("angles", "<", ">"),
    ("combining marks", "a\u0301", "@example.com"),
    ("wide", "漢", "@example.com"),
]


@pytest.mark.parametrize(("name", "piece", "end"), HUGE, ids=[name for name, *_ in HUGE])
def test_time_grows_with_the_length_only(name: str, piece: str, end: str) -> None:
    """Eight times the text: eight times the work, not sixty-four."""

    def cost(octets: int) -> float:
        text = piece * (octets // len(piece.encode())) + end

        def parse_all() -> None:
            for parse in (parse_mailbox, parse_address_list, Address.parse):
                with contextlib.suppress(AddressError):
                    parse(text)

        return least_cost(parse_all, runs=3)

    assert cost(100_000) < 30 * cost(12_500)
