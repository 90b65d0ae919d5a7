"""Delivery status notifications: RFC 3464, RFC 3461 §6, RFC 6522, RFC 6533.

What is built is read with the standard library's parser, which knows nothing of Waypost.
"""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Sequence
from dataclasses import replace
from email.message import EmailMessage, Message
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.mail.address import Address
from waypost.mail.dsn import Action, Report, ReportedRecipient, build_report
from waypost.mail.envelope import Recipient
from waypost.mail.reply import Reply
from waypost.smtp.data import DataEncoder

ORIGINAL = (
    b"Received: from x\r\n\tby y; Thu, 01 Jan 1970 00:00:00 +0000\r\n"
    b"From: cam7@plant.example\r\nSubject: motion\r\n\r\nSecret body.\r\n.\r\nEnd.\r\n"
)
REFUSED = Reply(550, "No such user", (1, 1))
BARE = re.compile(rb"(?<!\r)\n|\r(?!\n)|\0")


def entry(
    to: str = "ann@plant.example",
    reply: Reply = REFUSED,
    action: Action = Action.FAILED,
    *,
    original: str | None = None,
    remote: str | None = "[192.0.2.9]",
    until: float | None = None,
) -> ReportedRecipient:
    recipient = Recipient(Address.parse(to), original)
    return ReportedRecipient(recipient, action, reply, remote, until)


def report(
    recipients: Sequence[ReportedRecipient], returned: bytes = ORIGINAL, *, whole: bool = False
) -> Report:
    return Report(
        reporting_mta="[192.168.1.5]",
        sender=Address.parse("postmaster@[192.168.1.5]"),
        to=Address.parse("cam7@plant.example"),
        queue_id="Q17",
        arrived_at=1_000_000_000,
        written_at=1_000_007_200,
        envid=None,
        recipients=recipients,
        returned=returned,
        returned_whole=whole,
        token="T4711",
    )


def read(octets: bytes) -> EmailMessage:
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    defects = [defect for part in message.walk() for defect in part.defects]
    assert not defects
    return message


def parts(octets: bytes) -> list[Message]:
    message = read(octets)
    payload = message.get_payload()
    assert isinstance(payload, list)
    return list(payload)


def raw_parts(octets: bytes) -> list[bytes]:
    """The body parts as they are on the wire (RFC 2046 §5.1.1)."""
    head, _, body = octets.partition(b"\r\n\r\n")
    found = re.search(rb'boundary="([^"]+)"', head)
    assert found is not None
    pieces = (b"\r\n" + body).split(b"\r\n--" + found[1])
    assert pieces[-1] == b"--\r\n"
    return pieces[1:-1]


def status_fields(octets: bytes) -> list[list[tuple[str, str]]]:
    """The groups of a delivery-status part, read by hand: fields unfolded."""
    body = raw_parts(octets)[1].partition(b"\r\n\r\n")[2].decode()
    groups: list[list[tuple[str, str]]] = [[]]
    for line in re.sub(r"\r\n(?=[ \t])", "", body).split("\r\n"):
        if not line:
            groups.append([])
        else:
            name, colon, value = line.partition(":")
            assert colon, f"not a field: {line!r}"
            assert re.fullmatch(r"[A-Za-z\-]+", name)
            groups[-1].append((name, value.strip()))
    return [group for group in groups if group]


def test_it_is_a_report_with_three_parts_and_human_words_first() -> None:
    """RFC 6522 §3, RFC 3464 §2."""
    octets = build_report(report([entry()]))
    message = read(octets)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert [part.get_content_type() for part in parts(octets)] == [
        "text/plain",
        "message/delivery-status",
        "text/rfc822-headers",
    ]
    text = parts(octets)[0].get_payload()
    assert "could not be delivered" in text
    assert "ann@plant.example" in text
    assert "No such user" in text
    assert text.index("could not be delivered") < text.index("ann@plant.example")


def test_header_of_a_report() -> None:
    """RFC 5322 §3.6, RFC 3834 §5."""
    message = read(build_report(report([entry()])))
    assert message["To"] == "cam7@plant.example"
    assert "postmaster@[192.168.1.5]" in message["From"]
    assert message["Auto-Submitted"].startswith("auto-replied")
    assert message["MIME-Version"] == "1.0"
    assert message["Message-ID"] == "<T4711@[192.168.1.5]>"
    assert parsedate_to_datetime(message["Date"]).timestamp() == 1_000_007_200
    assert message["Subject"]
    for name in set(message.keys()):
        assert len(message.get_all(name) or []) == 1


def test_fields_of_a_failure() -> None:
    """RFC 3464 §2.2 and §2.3."""
    per_message, per_recipient = status_fields(
        build_report(replace(report([entry(original="rfc822;a+b@x.example")]), envid="QQ314159"))
    )
    assert dict(per_message) == {
        "Original-Envelope-Id": "QQ314159",
        "Reporting-MTA": "dns; [192.168.1.5]",
        "Arrival-Date": "Sun, 09 Sep 2001 01:46:40 +0000",
    }
    fields = dict(per_recipient)
    assert fields["Original-Recipient"] == "rfc822; a+b@x.example"
    assert fields["Final-Recipient"] == "rfc822; ann@plant.example"
    assert fields["Action"] == "failed"
    assert fields["Status"] == "5.1.1"
    assert fields["Remote-MTA"] == "dns; [192.0.2.9]"
    assert fields["Diagnostic-Code"] == "smtp; 550 5.1.1 No such user"
    assert fields["Last-Attempt-Date"] == "Sun, 09 Sep 2001 03:46:40 +0000"
    assert "Will-Retry-Until" not in fields


def test_optional_fields_are_left_out_where_nothing_is_known() -> None:
    per_message, per_recipient = status_fields(build_report(report([entry(remote=None)])))
    assert "Original-Envelope-Id" not in dict(per_message)
    assert not {"Original-Recipient", "Remote-MTA", "Diagnostic-Code"} & set(dict(per_recipient))


@pytest.mark.parametrize(
    ("action", "reply", "status"),
    [
        (Action.FAILED, Reply(554, "x"), "5.0.0"),
        (Action.FAILED, Reply(552, "x", (2, 2)), "5.2.2"),
        (Action.DELAYED, Reply(451, "x", (3, 0)), "4.3.0"),
        (Action.DELIVERED, Reply(250, "x", (0, 0)), "2.0.0"),
        (Action.RELAYED, Reply(250, "x", (1, 5)), "2.1.5"),
    ],
)
def test_action_and_status_agree(action: Action, reply: Reply, status: str) -> None:
    """RFC 3464 §2.3.3 and §2.3.4."""
    octets = build_report(report([entry(reply=reply, action=action)]))
    fields = dict(status_fields(octets)[1])
    assert fields["Action"] == str(action)
    assert fields["Status"] == status


def test_a_delay_says_until_when_it_is_tried() -> None:
    """RFC 3464 §2.3.9, and in words for people."""
    delayed = entry(reply=Reply(451, "x"), action=Action.DELAYED, until=1_000_432_000)
    octets = build_report(report([delayed]))
    assert dict(status_fields(octets)[1])["Will-Retry-Until"] == "Fri, 14 Sep 2001 01:46:40 +0000"
    text = parts(octets)[0].get_payload()
    assert "Fri, 14 Sep 2001 01:46:40 +0000" in text
    assert "{" not in text


def test_each_recipient_has_a_group_of_its_own() -> None:
    """RFC 3464 §2.1: groups are kept apart by empty lines."""
    entries = [entry(f"u{number}@plant.example") for number in range(4)]
    octets = build_report(report(entries))
    groups = status_fields(octets)
    assert len(groups) == 5
    assert [dict(group)["Final-Recipient"] for group in groups[1:]] == [
        f"rfc822; u{number}@plant.example" for number in range(4)
    ]
    # The standard library reads the part as a list of messages, one for each group.
    status = [part for part in parts(octets)[1].get_payload() if part.keys()]
    assert [part["Action"] for part in status[1:]] == ["failed"] * 4


def test_headers_go_back_unless_all_was_asked_for() -> None:
    """RFC 3461 §4.3, RET=HDRS."""
    octets = build_report(report([entry()]))
    third = raw_parts(octets)[2]
    assert third.startswith(b"\r\nContent-Type: text/rfc822-headers")
    assert b"Subject: motion" in third
    assert b"Secret body" not in octets


def test_all_goes_back_when_asked_for() -> None:
    """RFC 3461 §4.3, RET=FULL."""
    octets = build_report(report([entry()], whole=True))
    third = raw_parts(octets)[2]
    kind, _, returned = third.partition(b"\r\n\r\n")
    assert b"Content-Type: message/rfc822" in kind
    assert returned + b"\r\n" == ORIGINAL


@pytest.mark.parametrize(
    "returned",
    [
        b"",
        b"\r\n",
        b"\r\nonly a body\r\n",
        b"Subject: no body\r\n",
        b"Subject: no line end",
        b"Subject: x\r\n\r\nno line end",
        b"\r\n--=_waypost_T4711--\r\n",
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_any_returned_content_leaves_the_report_whole(returned: bytes, whole: bool) -> None:
    octets = build_report(report([entry()], returned, whole=whole))
    assert octets.endswith(b"--=_waypost_T4711--\r\n")
    assert len(parts(octets)) >= 3
    assert BARE.search(octets) is None


def test_eight_bit_content_is_declared() -> None:
    """RFC 2045 §6.4: no part may hold more than its multipart declares."""
    returned = "Subject: Größe\r\n\r\nÜber\r\n".encode()
    octets = build_report(report([entry()], returned, whole=True))
    assert read(octets)["Content-Transfer-Encoding"] == "8bit"
    assert b"Content-Transfer-Encoding: 8bit" in raw_parts(octets)[2].partition(b"\r\n\r\n")[0]
    assert b"Content-Transfer-Encoding: 7bit" in raw_parts(octets)[1].partition(b"\r\n\r\n")[0]


@pytest.mark.parametrize(
    ("to", "original"),
    [
        ("jürgen@plant.example", None),
        ("ann@plant.example", "utf-8;jürgen@plant.example"),
        ("用户@例え.jp", "utf-8;用户@例え.jp"),
    ],
)
def test_utf8_addresses_need_the_global_forms(to: str, original: str | None) -> None:
    """RFC 6533 §3 and §4."""
    octets = build_report(report([entry(to, original=original)]))
    heads = [part.partition(b"\r\n\r\n")[0] for part in raw_parts(octets)]
    assert b"message/global-delivery-status" in heads[1]
    assert b"message/global-headers" in heads[2]
    assert read(octets)["Content-Transfer-Encoding"] == "8bit"
    fields = dict(status_fields(octets)[1])
    kind, _, address = fields["Final-Recipient"].partition("; ")
    assert address == str(Address.parse(to))
    assert kind == ("rfc822" if to.isascii() else "utf-8")
    if original is not None:
        assert fields["Original-Recipient"] == original.replace(";", "; ", 1)
    whole = build_report(report([entry(to, original=original)], whole=True))
    assert b"Content-Type: message/global\r\n" in raw_parts(whole)[2]


def assert_sound(octets: bytes) -> None:
    """What must hold of any report, whatever a peer said."""
    # RFC 5321 §2.3.8: CRLF only, so that it can leave at all.
    assert BARE.search(octets) is None
    encoder = DataEncoder()
    encoder.encode(octets)
    assert encoder.is_canonical
    # RFC 5322 §2.1.1.
    assert all(len(line) <= 998 for line in octets.split(b"\r\n"))
    message = read(octets)
    assert sorted(message.keys()) == sorted(
        [
            *("From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version"),
            *("Content-Type", "Content-Transfer-Encoding"),
        ]
    )
    pieces = raw_parts(octets)
    assert len(pieces) == 3
    overall = message["Content-Transfer-Encoding"]
    for piece in pieces:
        head, _, body = piece.partition(b"\r\n\r\n")
        if b"Content-Transfer-Encoding: 7bit" in head:
            assert body.isascii()
        else:
            assert overall == "8bit"
    per_message, *groups = status_fields(octets)
    assert {name for name, _ in per_message} <= {
        *("Original-Envelope-Id", "Reporting-MTA", "Arrival-Date"),
    }
    for group in groups:
        names = [name for name, _ in group]
        assert sorted(names) == sorted(set(names))
        assert set(names) <= {
            *("Original-Recipient", "Final-Recipient", "Action", "Status", "Remote-MTA"),
            *("Diagnostic-Code", "Last-Attempt-Date", "Will-Retry-Until"),
        }


@pytest.mark.parametrize(
    "text",
    [
        "a\rAction: delivered",
        "a\r\nAction: delivered",
        "a\nAction: delivered\n\nFinal-Recipient: rfc822; evil@x",
        "a\x0bb\x0cc\x1bd\x85e\u2028f\0g\x7f",
        "\r\n--=_waypost_T4711--\r\n",
        "tab\there",
        "Größe – nicht gefunden",
        "x" * 5_000,
        "word " * 1_000,
        "\n".join(["x" * 300] * 40),
        "",
    ],
)
def test_a_peers_words_inject_nothing(text: str) -> None:
    heard = Reply.received(550, text.split("\n"))
    for reply in (Reply(550, text, (1, 1)), heard):
        octets = build_report(report([entry(reply=reply), entry("bob@plant.example")]))
        assert_sound(octets)
        assert len(status_fields(octets)) == 3
        assert dict(status_fields(octets)[1])["Action"] == "failed"


def test_long_words_of_a_peer_are_folded_not_lost() -> None:
    """RFC 5322 §2.2.3: unfolded, the field says what the peer said."""
    words = " ".join(f"word{number}" for number in range(300))
    octets = build_report(report([entry(reply=Reply(550, words, (1, 1)))]))
    said = dict(status_fields(octets)[1])["Diagnostic-Code"]
    assert said == f"smtp; 550 5.1.1 {words}"


@given(
    st.text(max_size=200),
    st.sampled_from(["ann@plant.example", "jürgen@plant.example", '"a\\"b c"@[192.0.2.1]']),
    st.booleans(),
)
def test_any_words_of_a_peer_leave_the_report_sound(text: str, to: str, whole: bool) -> None:
    octets = build_report(report([entry(to, Reply(550, text, (1, 1)))], whole=whole))
    assert_sound(octets)


def test_binary_content_never_makes_a_report_that_cannot_leave() -> None:
    """RFC 3030: BINARYMIME content may hold bare CR, LF and NUL; a report goes by DATA."""
    binary = b"Subject: x\r\nX: a\rb\nc\0d\r\n\r\n\0\r\n\n\r"
    for whole in (True, False):
        assert_sound(build_report(report([entry()], binary, whole=whole)))
