"""Octets above 127 in header fields: encoded so that everybody reads what was sent."""

from __future__ import annotations

import time
from email import message_from_bytes, policy
from email.header import decode_header, make_header

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.mail.encoded_words import encoded, encoded_words

WORDS = st.lists(
    st.one_of(
        st.text("abcäöü語é", min_size=1, max_size=30),
        st.sampled_from(["=?utf-8?q?x=C3=A4?=", "plain", "=?", "?="]),
    ),
    min_size=1,
    max_size=12,
)


def shown(body: bytes) -> str:
    return str(make_header(decode_header(body.decode("ascii"))))


@given(st.lists(st.text("abcäöü語é😀", min_size=1, max_size=30), min_size=1, max_size=12))
def test_a_subject_reads_as_it_was(words: list[str]) -> None:
    text = " ".join(words)
    body = encoded("subject", text.encode(), None)
    assert body.isascii()
    assert shown(body) == text


@given(WORDS)
def test_what_is_encoded_already_reads_as_it_did(words: list[str]) -> None:
    body = encoded("subject", " ".join(words).encode(), None)
    assert body.isascii()
    # The library's own reading of the mixture, with its encoded words decoded one by one.
    for word in words:
        if word.isalpha():
            assert word in shown(body)


@pytest.mark.parametrize(
    ("octets", "declared", "text"),
    [
        ("Küche".encode(), None, "Küche"),
        ("Küche".encode("latin-1"), None, "Küche"),
        ("报警".encode("gb2312"), "gb2312", "报警"),
        ("报警".encode("gb2312"), "no such; charset", "报警"),
        ("报警".encode("gb2312"), None, "报警"),
        ("тревога".encode("cp1251"), None, "тревога"),
        (b"\x81\x8d", None, None),
    ],
)
def test_the_charset(octets: bytes, declared: str | None, text: str | None) -> None:
    body = encoded("subject", b"Alarm " + octets, declared)
    assert body.startswith(b"Alarm =?")
    ((_, _), (raw, charset)) = decode_header(body.decode("ascii"))
    assert raw == octets
    if text is not None:
        assert isinstance(raw, bytes)
        assert raw.decode(charset or "") == text


@pytest.mark.parametrize(
    "body",
    [
        'Jörg Müller <joerg@host.example>, "Anna, Ä." <anna@host.example>',
        "(Küche) joerg@host.example",
        "Jörg<joerg@host.example>",
    ],
)
def test_names_are_encoded_and_addresses_stay(body: str) -> None:
    made = encoded("to", body.encode(), None)
    assert made.isascii()
    read = message_from_bytes(b"To: " + made + b"\r\n\r\n", policy=policy.default)["To"]
    assert [address.addr_spec for address in read.addresses] == [
        word.strip("<>,")
        for word in body.split()
        for word in [word.partition("<")[2] or word]
        if "@" in word
    ]
    if "Jörg Müller" in body:
        assert read.addresses[0].display_name == "Jörg Müller"
        assert read.addresses[1].display_name == "Anna, Ä."


def test_an_address_itself_cannot_be_encoded() -> None:
    assert encoded("to", "Ä <ü@host>".encode(), None).endswith("<ü@host>".encode())


def test_a_file_name_goes_by_rfc_2231() -> None:
    body = encoded("content-disposition", 'attachment; filename="Tür 1.jpg"'.encode(), None)
    read = message_from_bytes(b"Content-Disposition: " + body + b"\r\n\r\n", policy=policy.default)
    assert read.get_filename() == "Tür 1.jpg"


@given(st.text(min_size=1, max_size=300))
def test_no_word_is_longer_than_it_may_be(text: str) -> None:
    for word in encoded_words(text.encode("utf-8", "replace"), "utf-8").split():
        assert len(word) <= 75
        ((raw, charset),) = decode_header(word.decode())
        assert isinstance(raw, bytes)
        raw.decode(charset or "")


@pytest.mark.parametrize("piece", [b'"\\', b"<", b"(", b'"', b"=?a?b?", b"@", b" "])
def test_hostile_fields_cost_little(piece: bytes) -> None:
    body = b"\xff" + piece * (100_000 // len(piece))
    started = time.process_time()
    for key in ("to", "subject", "content-type"):
        encoded(key, body, None)
    assert time.process_time() - started < 20  # minutes, where time grows with the square
