"""Mail of devices on its way through relays that are strict: a real Postfix, and scripted peers."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from email.message import EmailMessage
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support.hub import Hub
from tests.support.mail import accepted, next_reply, parsed, submit, wire
from tests.support.postfix import Postfix
from tests.support.toml import retry, route
from tests.support.waiting import wait_until

from .conftest import StartHub, StartPeer

ACCOUNT = "me@gmail.example"
FAR = route("relay:far", match='recipient = "*@far.example"')
EXTENSIONS_OF_OLD = ("PIPELINING", "SIZE 5000", "ENHANCEDSTATUSCODES")


def relay(port: int, *more: str) -> str:
    keys = "".join(f"{line}\n" for line in more)
    return f'[relay.far]\nhost = "127.0.0.1"\nport = {port}\ntls = "none"\n{keys}'


@pytest.fixture(scope="module")
def postfix() -> Iterator[Postfix]:
    """As strict as a provider, and of the days before 8BITMIME."""
    users = ("ann", "bob", "eve")
    with Postfix(
        domains=("far.example",),
        mailboxes=users,
        main_cf={
            "smtpd_discard_ehlo_keywords": "8bitmime,smtputf8",
            "strict_7bit_headers": "yes",
            "smtpd_sender_restrictions": "check_sender_access"
            f" inline:{{ {{{ACCOUNT} = OK}} {{<> = OK}} }}, reject",
            "message_size_limit": "60000000",
            "mailbox_size_limit": "0",
            "virtual_mailbox_limit": "0",
        },
    ) as running:
        yield running


@pytest.fixture
def hub(start_hub: StartHub, postfix: Postfix) -> Hub:
    return start_hub(FAR + relay(postfix.port, f'rewrite_from = "{ACCOUNT}"'))


def stored(postfix: Postfix, user: str) -> EmailMessage:
    """The one message of that user."""
    new: Path = postfix.mailbox(user) / "new"
    wait_until(lambda: new.is_dir() and list(new.iterdir()), postfix.log_text)
    (path,) = new.iterdir()
    octets = path.read_bytes()
    path.unlink()
    return parsed(octets)


def test_a_camera_through_a_strict_relay(hub: Hub, postfix: Postfix) -> None:
    """No Date, no Message-ID, no domain in From, raw octets, lines without end."""
    text = "Bewegung in der Küche " * 100
    content = wire("From: Türkamera <cam@>", "Subject: Küche: Alarm", "", text)
    with hub.smtp() as smtp:
        queue_id = submit(smtp, "ann@far.example", sender="cam@[127.0.0.1]", content=content)
    mail = stored(postfix, "ann")
    assert mail["Return-Path"] == f"<{ACCOUNT}>"
    assert str(mail["From"]) == f"Türkamera <{ACCOUNT}>"
    assert str(mail["Reply-To"]) == "Türkamera <cam@[127.0.0.1]>"
    assert str(mail["Subject"]) == "Küche: Alarm"
    assert mail["Date"].datetime.year > 2020
    assert mail["Message-ID"] == f"<{queue_id}@[127.0.0.1]>"
    assert mail.get_content().rstrip("\r\n") == text.rstrip() + " "
    hub.wait_for_log(f"attempt id={queue_id}")
    changes = 'changes="date message-id from reply-to charset quoted-printable"'
    assert changes in hub.log_text()
    story = wait_until(lambda: hub.json("trace", "--id", queue_id)[0]["recipients"][0]["story"])
    assert [(one["outcome"], one["reply"]) for one in story] == [
        ("rewritten", "date, message-id, from, reply-to, charset, quoted-printable")
    ]


def test_a_report_keeps_its_null_path(hub: Hub, postfix: Postfix) -> None:
    """The relay of this hub takes its account only; a bounce has nobody to answer to."""
    with hub.smtp() as smtp:
        queue_id = submit(smtp, "bob@far.example", sender="", content=wire("Subject: x", "", "y"))
    hub.wait_for_log(f"attempt id={queue_id}")
    mail = stored(postfix, "bob")
    assert mail["Return-Path"] == "<>"
    assert mail["From"].addresses[0].addr_spec == ACCOUNT


def test_an_attachment_of_twenty_megabytes(hub: Hub, postfix: Postfix) -> None:
    """Base64 in one line, as some cameras send it."""
    head = wire(
        "From: cam@[127.0.0.1]",
        "Content-Type: multipart/mixed; boundary=b",
        "",
        "--b",
        "Content-Type: image/jpeg",
        "Content-Transfer-Encoding: base64",
        "",
    )
    content = head + b"QUJD" * 5_000_000 + b"\r\n--b--\r\n"
    with hub.smtp() as smtp:
        submit(smtp, "eve@far.example", sender="cam@[127.0.0.1]", content=content)
    mail = stored(postfix, "eve")
    (part,) = mail.iter_parts()
    assert part.get_payload(decode=True) == b"ABC" * 5_000_000  # type: ignore[attr-defined]


def test_what_is_said_to_the_relay_is_what_it_gets(
    start_hub: StartHub, start_peer: StartPeer
) -> None:
    peer = start_peer(extensions=EXTENSIONS_OF_OLD)
    hub = start_hub(FAR + relay(peer.port))
    with hub.smtp() as smtp:
        submit(
            smtp,
            "ann@far.example",
            content=wire("Subject: x", "", ".Küche"),
            mail="BODY=8BITMIME",
        )
    (mail,) = peer.wait_for_mails()
    assert mail.sender == f"FROM:<ann@[127.0.0.1]> SIZE={len(mail.content)}"
    assert mail.content.isascii()
    assert mail.content.endswith(b"\r\n\r\n.K=C3=BCche\r\n")


def test_a_signature_is_broken_only_with_a_word(start_hub: StartHub, start_peer: StartPeer) -> None:
    peer = start_peer()
    hub = start_hub(FAR + relay(peer.port, f'rewrite_from = "{ACCOUNT}"'))
    signature = "DKIM-Signature: v=1; a=rsa-sha256; d=a.example; s=x; h=from:subject; bh=x; b=y"
    content = wire(signature, "From: a@a.example", "Subject: x", "", "\x7f" * 1_500)
    with hub.smtp() as smtp:
        queue_id = submit(smtp, "ann@far.example", content=content)
    (mail,) = peer.wait_for_mails()
    hub.wait_for_log(f"signature-broken id={queue_id} target=relay:far")
    assert b"\r\nX-Original-" + signature.encode() in mail.content
    assert mail.content.endswith(b"\r\n\r\n" + b"\x7f" * 1_500 + b"\r\n")


def test_too_large_goes_back(start_hub: StartHub, start_peer: StartPeer) -> None:
    peer = start_peer()
    hub = start_hub(FAR + relay(peer.port, 'max_message = "1k"') + retry(1))
    with hub.smtp() as smtp:
        submit(smtp, "ann@far.example", content=wire("Subject: x", "", *["y" * 70] * 20))
        submit(smtp, "ann@far.example", content=wire("Subject: small", "", "y"))
    report = hub.wait_for_mail("ann")[0]
    assert b"552 5.3.4" in report
    (mail,) = peer.wait_for_mails()
    assert b"Subject: small" in mail.content


@pytest.fixture(scope="module")
def small_postfix() -> Iterator[Postfix]:
    """Takes little at a time, and only lines: no CHUNKING, no BINARYMIME."""
    with Postfix(
        domains=("far.example",),
        mailboxes=("ann", "bob", "eve"),
        main_cf={
            "message_size_limit": "100000",
            "smtpd_discard_ehlo_keywords": "chunking",
        },
    ) as running:
        yield running


def in_base64(octets: bytes) -> bytes:
    return base64.encodebytes(octets).replace(b"\n", b"\r\n")


def alarm(picture: bytes, encoding: str) -> bytes:
    head = wire(
        "From: cam@[127.0.0.1]",
        "Subject: alarm",
        "MIME-Version: 1.0",
        "Content-Type: multipart/mixed; boundary=b",
        f"Content-Transfer-Encoding: {encoding.replace('base64', '7bit')}",
        "",
        "--b",
        "Content-Type: text/plain",
        "",
        "Somebody is at the gate.",
        "--b",
        'Content-Type: image/jpeg; name="gate.jpg"',
        f"Content-Transfer-Encoding: {encoding}",
        "",
    )
    return head + picture + b"\r\n--b--\r\n"


def test_a_large_picture_is_left_out_for_a_relay_and_kept_here(
    start_hub: StartHub, small_postfix: Postfix
) -> None:
    both = route("relay:far", "mailbox:cams", match='recipient = "*@far.example"')
    hub = start_hub(both + relay(small_postfix.port, 'oversize = "strip"'))
    octets = bytes(range(256)) * 4_000
    content = alarm(in_base64(octets), "base64")
    with hub.smtp() as smtp:
        queue_id = submit(smtp, "ann@far.example", content=content)
    mail = stored(small_postfix, "ann")
    text, told = (part.get_content() for part in mail.iter_parts())  # type: ignore[attr-defined]
    assert text.strip() == "Somebody is at the gate."
    assert "Name: gate.jpg" in told
    assert f"Size: {len(octets)} octets" in told
    assert sha256(octets).hexdigest() in told
    assert f"as {queue_id}, and goes to mailbox cams there." in told
    (whole,) = hub.wait_for_mail("cams")
    assert whole.endswith(content)
    hub.wait_for_log(f"attempt id={queue_id}")
    wait_until(lambda: "left-out" in hub.log_text())


def test_a_signed_picture_goes_back(start_hub: StartHub, small_postfix: Postfix) -> None:
    hub = start_hub(FAR + relay(small_postfix.port, 'oversize = "strip"') + retry(1))
    signature = b"DKIM-Signature: v=1; a=rsa-sha256; d=a.example; s=x; h=from; bh=x; b=y\r\n"
    content = signature + alarm(in_base64(bytes(1_000_000)), "base64")
    with hub.smtp() as smtp:
        submit(smtp, "ann@far.example", content=content)
    (report,) = hub.wait_for_mail("ann")
    assert b"552 5.3.4" in report


def test_a_binary_picture_for_a_relay_that_takes_lines(
    start_hub: StartHub, small_postfix: Postfix
) -> None:
    hub = start_hub(FAR + relay(small_postfix.port))
    octets = bytes(range(256)) * 100 + b"\r\n\n\r\0\r\r\n"
    content = alarm(octets, "binary")
    with hub.smtp(local_hostname="x") as smtp:
        accepted(smtp, "MAIL FROM:<cam@[127.0.0.1]> BODY=BINARYMIME")
        accepted(smtp, "RCPT TO:<bob@far.example>")
        smtp.send(b"BDAT %d LAST\r\n" % len(content) + content)
        assert next_reply(smtp).startswith("250")
    mail = stored(small_postfix, "bob")
    text, picture = mail.iter_parts()
    assert text.get_content().strip() == "Somebody is at the gate."  # type: ignore[attr-defined]
    assert picture["Content-Transfer-Encoding"] == "base64"
    assert picture.get_payload(decode=True) == octets  # type: ignore[attr-defined]
