"""Header sections on their way out: what is repaired, what is rewritten, what is left alone."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.mail.address import Address
from waypost.mail.fields import MAX_LINE, split
from waypost.mail.outgoing import Circumstances, Rewritten, rewritten

ACCOUNT = Address.parse("me@gmail.example")
DEVICE = Address.parse("cam@[10.0.0.5]")
KNOWN = Circumstances("0abcdefghijk1", 1_700_000_000.0, "hub.example", DEVICE, DEVICE.domain)
GOOD = (
    b"From: Camera <cam@[10.0.0.5]>\r\n"
    b"Date: Tue, 14 Nov 2023 22:13:20 +0000\r\n"
    b"Message-ID: <a@b>\r\n"
)


def run(head: bytes, account: Address | None = None, *, utf8: bool = False) -> Rewritten:
    fields = split(head, is_all=True).fields
    return rewritten(fields, KNOWN, rewrite_from=account, may_be_utf8=utf8)


def octets(made: Rewritten) -> bytes:
    return b"".join(one.octets for one in made.fields)


def read(made: Rewritten) -> EmailMessage:
    return message_from_bytes(octets(made) + b"\r\n", policy=policy.default)


def test_a_sound_header_is_left_alone() -> None:
    made = run(GOOD + b"X-Odd :  y \r\n\tz\r\n")
    assert made.changes == []
    assert octets(made) == GOOD + b"X-Odd :  y \r\n\tz\r\n"


def test_what_is_missing_is_added_behind_what_there_is() -> None:
    made = run(b"Subject: x\r\n")
    assert [one.key for one in made.fields] == ["subject", "date", "message-id", "from"]
    assert made.changes == ["date", "message-id", "from"]
    assert made.fields[1].body == b"Tue, 14 Nov 2023 22:13:20 +0000"
    assert made.fields[2].body == b"<0abcdefghijk1@hub.example>"
    assert made.fields[3].body == b"<cam@[10.0.0.5]>"


@pytest.mark.parametrize(
    "date", [b"yesterday", b"Thu, 01 Jan 1970 00:00:07 +0000", b"", b"x" * 900]
)
def test_a_date_that_is_none_stays_by_another_name(date: bytes) -> None:
    head = GOOD.replace(b"Tue, 14 Nov 2023 22:13:20 +0000", date)
    made = run(head)
    assert made.changes == ["date"]
    assert [one.body for one in made.fields if one.key == "x-original-date"] == [date]
    assert [one.body for one in made.fields if one.key == "date"] == [
        b"Tue, 14 Nov 2023 22:13:20 +0000"
    ]


@pytest.mark.parametrize(
    ("was", "name", "spec"),
    [
        ("root (Cron Daemon)", "Cron Daemon", "root@[10.0.0.5]"),
        ("cam@", "", "cam@[10.0.0.5]"),
        ("root", "", "root@[10.0.0.5]"),
        ("NVR <nvr>", "NVR", "nvr@[10.0.0.5]"),
        ("NVR <nvr@>", "NVR", "nvr@[10.0.0.5]"),
        ("Front Door Camera", "Front Door Camera", "cam@[10.0.0.5]"),
        ("<>", "", "cam@[10.0.0.5]"),
        ("", "", "cam@[10.0.0.5]"),
        ("a@b@c, <", "", "cam@[10.0.0.5]"),
    ],
)
def test_a_from_that_nobody_understands(was: str, name: str, spec: str) -> None:
    made = run(GOOD.replace(b"Camera <cam@[10.0.0.5]>", was.encode()))
    assert made.changes == ["from"]
    (author,) = read(made)["From"].addresses
    assert author.addr_spec == spec
    if name:
        assert author.display_name == name
    assert [one.body for one in made.fields if one.key == "x-original-from"] == [was.encode()]
    assert run(octets(made)).changes == []


def test_in_the_name_of_an_account() -> None:
    made = run(GOOD + b"Sender: x@y.example\r\n", ACCOUNT)
    assert made.changes == ["from", "reply-to", "sender"]
    assert [one.octets for one in made.fields if one.key in ("from", "reply-to")] == [
        b"From: Camera <me@gmail.example>\r\n",
        b"Reply-To: Camera <cam@[10.0.0.5]>\r\n",
    ]
    assert b"X-Original-From: Camera <cam@[10.0.0.5]>\r\n" in octets(made)
    assert b"X-Original-Sender: x@y.example\r\n" in octets(made)
    again = run(octets(made), ACCOUNT)
    assert again.changes == []
    assert octets(again) == octets(made)


def test_without_a_name_the_address_is_the_name() -> None:
    made = run(b"From: cam@[10.0.0.5]\r\n" + GOOD.partition(b"\r\n")[2], ACCOUNT)
    assert made.fields[0].octets == b'From: "cam@[10.0.0.5]" <me@gmail.example>\r\n'


def test_an_answer_address_that_is_there_stays() -> None:
    made = run(GOOD + b"Reply-To: desk@plant.example\r\n", ACCOUNT)
    assert [one.body for one in made.fields if one.key == "reply-to"] == [b"desk@plant.example"]


def test_the_account_itself_may_send() -> None:
    head = GOOD.replace(b"cam@[10.0.0.5]", b"me@GMAIL.example") + b"Sender: x@y.example\r\n"
    assert run(head, ACCOUNT).changes == []


def test_a_name_in_raw_octets_is_encoded() -> None:
    made = run(GOOD.replace(b"Camera", "Küche".encode("latin-1")), ACCOUNT)
    assert octets(made).isascii()
    assert read(made)["From"].addresses[0].display_name == "Küche"
    assert read(made)["Reply-To"].addresses[0].display_name == "Küche"


SIGNED = b"DKIM-Signature: v=1; d=plant.example;\r\n h=from:date:subject:message-id; b=abc\r\n"


def test_what_is_signed_is_not_repaired() -> None:
    head = (
        SIGNED + b"From: root (Cron)\r\nSubject: " + "ä".encode() + b"\r\nTo: \xc3\xa4 <a@b.c>\r\n"
    )
    made = run(head)
    assert made.changes == ["charset"]  # To is not covered
    assert octets(made).startswith(head.partition(b"To:")[0])


def test_a_signature_that_must_break_is_renamed() -> None:
    made = run(SIGNED + GOOD, ACCOUNT)
    assert made.changes == ["from", "reply-to", "signature-broken"]
    assert made.fields[0].name == b"X-Original-DKIM-Signature"
    assert made.fields[0].octets.partition(b":")[2] == SIGNED.partition(b":")[2]


def test_a_signer_who_is_not_in_from_any_more() -> None:
    head = GOOD + b"Content-Type: multipart/signed; boundary=x\r\n"
    assert run(head, ACCOUNT).changes == ["from", "reply-to", "signer-differs"]
    assert run(head).changes == []


def test_utf8_stays_where_it_was_asked_for() -> None:
    head = GOOD + "Subject: Tür\r\n".encode()
    assert run(head, utf8=True).changes == []
    assert run(head).changes == ["charset"]
    assert run(GOOD + b"Subject: T\xfcr\r\n", utf8=True).changes == ["charset"]


FIELD = st.builds(
    lambda name, body: name + b": " + body + b"\r\n",
    st.sampled_from(
        [b"From", b"To", b"Subject", b"Date", b"Message-ID", b"Sender", b"Reply-To", b"X-A", b"Cc"]
    ),
    st.one_of(
        st.binary(max_size=60).map(lambda raw: raw.translate(None, b"\r\n\0")),
        st.text('abc <>@,."()ä\\', max_size=40).map(str.encode),
        st.integers(0, 4_000).map(lambda size: b"word " * (size // 5)),
        st.just(b"a@b.example"),
    ),
)


@given(st.lists(FIELD, max_size=8), st.sampled_from([None, ACCOUNT]), st.booleans())
def test_any_header(fields: list[bytes], account: Address | None, utf8: bool) -> None:
    head = b"".join(fields)
    made = run(head, account, utf8=utf8)
    sent = octets(made)
    assert sent.count(b"\r") == sent.count(b"\n") == sent.count(b"\r\n")
    assert all(len(line) <= MAX_LINE for line in sent.split(b"\r\n"))
    assert len(split(sent, is_all=True).fields) == len(made.fields)
    # Nobody's field is lost, and the order of those that were there stays.
    names = [one.key.removeprefix("x-original-") for one in made.fields]
    there = [one.key for one in split(head, is_all=True).fields]
    rest = iter(names)
    assert all(name in rest for name in there)
    again = run(sent, account, utf8=utf8)
    assert octets(again) == sent
    assert [one.key for one in made.fields].count("from") == 1
    if account is not None:
        assert read(made)["From"].addresses[0].addr_spec == str(account)
