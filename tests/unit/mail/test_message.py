"""Header reading and trace fields: RFC 5321 §4.4, RFC 5322 §2.2, §3.3, §3.6.7."""

from __future__ import annotations

import email
import email.policy
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.mail.address import Address, IPAddress
from waypost.mail.envelope import Arrival, QueueId
from waypost.mail.message import (
    MAX_DECODED,
    count_received,
    date_field_value,
    decoded_fields,
    delivery_fields,
    header_fields,
    header_section,
    received_field,
    trace_name,
)

QUEUE_ID = QueueId("Q123")


def arrival(
    helo: str = "cam7", client: str | None = "192.168.1.7", protocol: str = "ESMTP"
) -> Arrival:
    ip: IPAddress | None = None if client is None else ip_address(client)
    local: IPAddress | None = None if client is None else ip_address("192.168.1.5")
    return Arrival(protocol, ip, local, helo, "smtp", trusted=True)


@pytest.mark.parametrize(
    ("head", "section"),
    [
        (b"", b""),
        (b"\r\nbody: x\r\n", b""),
        (b"A: 1\r\n\r\nB: 2\r\n", b"A: 1\r\n"),
        (b"A: 1\r\n b\r\nB: 2\r\n\r\n\r\n", b"A: 1\r\n b\r\nB: 2\r\n"),
        (b"A: 1\r\n", b"A: 1\r\n"),
        (b"A: 1", b"A: 1"),
    ],
)
def test_header_section_ends_at_the_first_empty_line(head: bytes, section: bytes) -> None:
    """RFC 5322 §2.1."""
    assert header_section(head) == section


@pytest.mark.parametrize(
    ("head", "count"),
    [
        (b"", 0),
        (b"Received: a\r\n", 1),
        (b"received: a\r\nRECEIVED: b\r\nReceived:c\r\n\r\n", 3),
        (b"Received: a\r\n\tby b\r\n received: no\r\nSubject: Received: x\r\n\r\n", 1),
        (b"X-Received: a\r\nReceived-SPF: pass\r\n\r\n", 0),
        (b"Subject: x\r\n\r\nReceived: in the body\r\n", 0),
        (b"\r\nReceived: in the body\r\n", 0),
        (b"Received: a\r\n" * 60 + b"\r\n", 60),
    ],
)
def test_received_fields_are_counted_in_the_header_only(head: bytes, count: int) -> None:
    """RFC 5321 §6.3."""
    assert count_received(head) == count


def test_header_fields_are_unfolded() -> None:
    """RFC 5322 §2.2.3: unfolding takes the CRLF away and keeps the white space."""
    head = b"From: a@b\r\nSUBJECT: one\r\n two\r\n\tthree\r\nTo : x\r\n\r\nno: y\r\n"
    fields = header_fields(head)
    assert fields == [("from", b"a@b"), ("subject", b"one two\tthree"), ("to", b"x")]


@given(st.binary(max_size=120))
def test_any_octets_may_be_looked_at_as_a_header(head: bytes) -> None:
    assert head.startswith(header_section(head))
    assert count_received(head) >= 0
    for name, value in header_fields(head):
        assert ":" not in name
        assert b"\r\n" not in value


@given(st.integers(0, 4_102_444_800))
def test_date_is_rfc_5322_in_utc(second: int) -> None:
    """RFC 5322 §3.3; "-0000" would say that the zone is unknown."""
    value = date_field_value(second + 0.75)
    assert value.endswith(" +0000")
    assert parsedate_to_datetime(value) == datetime.fromtimestamp(second, UTC)


def test_received_field_names_who_how_and_when() -> None:
    """RFC 5321 §4.4: from, with the address; by; with; id; for; date."""
    field = received_field(QUEUE_ID, arrival(), 0, "hub.example", Address.parse("a@b.example"))
    assert field == (
        b"Received: from cam7 ([192.168.1.7])\r\n"
        b"\tby hub.example (Waypost) with ESMTP id Q123\r\n"
        b"\tfor <a@b.example>; Thu, 01 Jan 1970 00:00:00 +0000\r\n"
    )


def test_received_field_calls_a_nameless_hub_by_its_literal() -> None:
    """RFC 5321 §2.3.5, §4.1.3."""
    field = received_field(QUEUE_ID, arrival(), 0, None, None)
    assert b"by [192.168.1.5] (Waypost)" in field
    assert b"for <" not in field
    v6 = Arrival("ESMTP", ip_address("fd00::7"), ip_address("fd00::5"), "cam", "smtp", trusted=True)
    field = received_field(QUEUE_ID, v6, 0, None, None)
    assert b"from cam ([IPv6:fd00::7])" in field
    assert b"by [IPv6:fd00::5]" in field


def test_received_field_without_a_greeting_or_a_network() -> None:
    assert b"from [192.168.1.7] ([192.168.1.7])" in received_field(
        QUEUE_ID, arrival(helo=""), 0, "h", None
    )
    local = received_field(QUEUE_ID, arrival(client=None, protocol="local"), 0, None, None)
    assert local.startswith(b"Received: from localhost")
    assert b"by localhost" in local


@given(st.text(max_size=300), st.sampled_from(["a@b.example", '"x y\\">"@[192.0.2.1]']))
def test_nothing_a_client_says_breaks_the_received_field(helo: str, recipient: str) -> None:
    """One field, whole lines, ASCII, within the line limit of RFC 5322 §2.1.1."""
    field = received_field(QUEUE_ID, arrival(helo), 0, "h.example", Address.parse(recipient))
    assert field.isascii()
    assert field.endswith(b"\r\n")
    lines = field[:-2].split(b"\r\n")
    assert all(line and len(line) <= 998 for line in lines)
    assert not any(octet < 32 and octet != 9 for line in lines for octet in line)
    assert lines[0].startswith(b"Received: ")
    assert all(line.startswith(b"\t") for line in lines[1:])
    parsed = email.message_from_bytes(field + b"\r\n", policy=email.policy.default)
    assert parsed.keys() == ["Received"]
    if not set(helo) & set('()\\"'):
        assert field.count(b"(") == field.count(b")") == 2


def test_trace_name() -> None:
    assert trace_name(ip_address("192.0.2.1"), None) == "[192.0.2.1]"
    assert trace_name(ip_address("::ffff:192.0.2.1"), None) == "[192.0.2.1]"
    assert trace_name(ip_address("2001:db8::1"), None) == "[IPv6:2001:db8::1]"
    assert trace_name(ip_address("192.0.2.1"), "hub.example") == "hub.example"
    assert trace_name(None, None) == "localhost"


def test_delivery_fields() -> None:
    """RFC 5321 §4.4: Return-Path at final delivery, "<>" for the null reverse-path."""
    to = [Address.parse("a@[IPv6:2001:DB8::1]"), Address.parse('"x y"@b.example')]
    assert delivery_fields(Address.parse("s@c.example"), to) == (
        b"Return-Path: <s@c.example>\r\n"
        b"Delivered-To: a@[IPv6:2001:db8::1]\r\n"
        b'Delivered-To: "x y"@b.example\r\n'
    )
    assert delivery_fields(None, []) == b"Return-Path: <>\r\n"


def test_a_header_of_encoded_words_without_end_costs_little() -> None:
    """The standard library would take seconds, and nobody else be heard meanwhile."""
    header = b"Subject: " + b"=?a?q?x " * 8_000 + b"\r\nX: " + b"=?a?q?x " * 8_000 + b"\r\n\r\n"
    [(name, text), _] = decoded_fields(header)
    assert name == "subject"
    assert len(text) > MAX_DECODED  # left as it was
    fine = b"Subject: =?utf-8?q?m=C3=B6tion?=\r\n\r\n"
    assert decoded_fields(fine) == [("subject", "mötion")]
