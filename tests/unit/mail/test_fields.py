"""The header section as octets: split without loss, folded without change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.mail.fields import MAX_LINE, Field, field, folded, parameter, split

ODD = st.lists(
    st.sampled_from(
        [b"a: b", b"Subject : x", b" folded", b"\ttoo", b"no field", b"", b"From: \xc3\xa4", b"x:"]
    ),
    max_size=8,
).map(b"\r\n".join)


@given(ODD, st.booleans())
def test_nothing_is_lost(head: bytes, is_all: bool) -> None:
    section = split(head, is_all=is_all)
    joined = b"".join(one.octets for one in section.fields)
    given = head[: section.size]
    assert joined in (given, given + b"\r\n")


def test_the_first_line_that_is_no_field_ends_the_section() -> None:
    head = b"A: 1\r\nB: 2\r\n folded\r\nno field here\r\nC: 3\r\n"
    section = split(head, is_all=False)
    assert [one.key for one in section.fields] == ["a", "b"]
    assert head[section.size :].startswith(b"no field here")
    assert section.fields[1].body == b"2 folded"
    assert section.is_whole


def test_a_section_that_goes_on_is_not_whole() -> None:
    assert not split(b"A: 1\r\nB: 2\r\n", is_all=False).is_whole
    assert split(b"A: 1\r\nB: 2\r\n", is_all=True).is_whole
    assert split(b"A: 1\r\n\r\nB", is_all=False).is_whole


@given(st.lists(st.text("abc", min_size=1, max_size=300), min_size=1, max_size=60))
def test_folding_keeps_the_body_and_the_limit(words: list[str]) -> None:
    body = " ".join(words).encode()
    made = field(b"References", body)
    assert made.body == body
    assert all(len(line) <= MAX_LINE for line in made.octets.split(b"\r\n"))
    assert folded(made.octets) == made.octets


def test_a_line_without_a_blank_stays_whole() -> None:
    octets = b"X: " + b"a" * 3_000 + b"\r\n"
    assert folded(octets).replace(b"\r\n ", b" ") == octets


def test_renaming_keeps_every_octet_behind_the_colon() -> None:
    was = Field(b"From", b"From:a@b\r\n\t(c)\r\n")
    assert was.renamed(b"X-Original-From").octets == b"X-Original-From:a@b\r\n\t(c)\r\n"


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'multipart/mixed; boundary="a b"', b"a b"),
        (b"text/plain; Boundary = x; y=z", b"x"),
        (b'text/plain; boundary="a\\"b"', b'a"b'),
        (b"text/plain; xboundary=a", None),
    ],
)
def test_parameters(body: bytes, value: bytes | None) -> None:
    assert parameter(body, b"boundary") == value
