"""What goes out is a view of what was stored: the same content behind a header of its own."""

from __future__ import annotations

import asyncio
import base64
import tracemalloc
from dataclasses import replace
from email import message_from_bytes, policy
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path

import pytest

from waypost.delivery.rewriting import Outgoing, outgoing
from waypost.delivery.transport import DeliveryJob
from waypost.mail.address import Address
from waypost.mail.envelope import Arrival, Body, Envelope, QueuedRecipient, QueueId, Recipient
from waypost.mail.message import QueuedMessage
from waypost.queue.spool import FileContent, InlineContent, StoredContent
from waypost.routing.hops import Oversize, Relay
from waypost.routing.targets import parse_target

ACCOUNT = Address.parse("me@gmail.example")
ALL = {"8BITMIME": "", "SMTPUTF8": "", "SIZE": ""}
PREPEND = b"Received: from x\r\n\tby y; now\r\n"
SOUND = b"From: <cam@[10.0.0.5]>\r\nDate: Tue, 14 Nov 2023 22:13:20 +0000\r\nMessage-ID: <a@b>\r\n"


def job(
    content: StoredContent,
    target: str = "relay:far",
    *,
    recipient: str = "ann@far.example",
    sender: str | None = "cam@[10.0.0.5]",
    body: Body | None = None,
    smtputf8: bool = False,
) -> DeliveryJob:
    with content.open() as source:
        is_eight_bit = not source.read().isascii()
    queued = QueuedRecipient(0, Recipient(Address.parse(recipient)), target, "rule")
    message = QueuedMessage(
        QueueId("0abcdefghijk1"),
        Envelope(None if sender is None else Address.parse(sender), body, smtputf8),
        Arrival(
            "ESMTP", ip_address("10.0.0.5"), ip_address("10.0.0.1"), "cam", "smtp", trusted=True
        ),
        content,
        PREPEND,
        1_700_000_000.0,
        is_eight_bit,
        True,
        (queued,),
    )
    return DeliveryJob(message, [queued], parse_target(target))


def made(
    work: DeliveryJob,
    relay: Relay | None = None,
    extensions: dict[str, str] = ALL,
) -> Outgoing:
    if relay is None and work.target.kind == "relay":
        relay = Relay("far", (), 25)
    return asyncio.run(outgoing(work, relay, extensions, "hub.example"))


def octets_of(message: QueuedMessage) -> bytes:
    with message.content.open() as source:
        whole = message.prepend + source.read()
    assert len(whole) == message.size
    if message.content.inline is not None:
        assert whole == message.prepend + message.content.inline
    return whole


@pytest.mark.parametrize("target", ["smtp:[10.0.0.9]:25", "lmtp:/run/lmtp", "direct"])
def test_hosts_near_by_get_every_octet(target: str) -> None:
    work = job(
        InlineContent(b"Subject: \xfc\r\n\r\n" + b"x" * 2_000), target, recipient="a@[10.0.0.9]"
    )
    assert made(work) == Outgoing(work.message)


@pytest.mark.parametrize("target", ["relay:far", "direct"])
def test_what_is_sound_is_not_touched(target: str) -> None:
    work = job(InlineContent(SOUND + b"\r\nHello.\r\n"), target)
    assert made(work).message is not None
    assert made(work).message.content is work.message.content
    assert made(work).changes == ()


@pytest.mark.parametrize("target", ["relay:far", "direct"])
def test_repairs_stand_behind_the_trace_fields(target: str) -> None:
    body = b"\r\nHello.\r\n"
    result = made(job(InlineContent(b"Subject: x\r\n" + body), target))
    assert result.changes == ("date", "message-id", "from")
    sent = octets_of(result.message)
    assert sent.startswith(PREPEND + b"Subject: x\r\nDate: ")
    assert sent.endswith(body)


def test_a_text_without_any_header() -> None:
    result = made(job(InlineContent(b"hello there\r\nworld\r\n")))
    assert "header-end" in result.changes
    assert octets_of(result.message).endswith(b"\r\n\r\nhello there\r\nworld\r\n")


@pytest.mark.parametrize("sender", ["cam@[10.0.0.5]", None])
def test_the_envelope_of_an_account(sender: str | None) -> None:
    work = job(InlineContent(SOUND + b"\r\n"), sender=sender)
    result = made(work, Relay("far", (), 25, rewrite_from=ACCOUNT))
    assert result.message.envelope.reverse_path == (None if sender is None else ACCOUNT)
    assert b'\r\nFrom: "cam@[10.0.0.5]" <me@gmail.example>\r\n' in octets_of(result.message)
    assert work.message.envelope.reverse_path != ACCOUNT


def test_seven_bits_where_there_is_nothing_else() -> None:
    head = SOUND + "Subject: Tür\r\nContent-Type: text/plain; charset=utf-8\r\n".encode()
    work = job(InlineContent(head + "\r\nKüche\r\n".encode()), body=Body.EIGHT_BIT_MIME)
    result = made(work, extensions={})
    assert result.changes == ("charset", "quoted-printable")
    assert octets_of(result.message).isascii()
    assert not result.message.is_eight_bit
    assert result.message.envelope.body is None
    assert made(work).changes == ("charset",)


def test_a_literal_gets_seven_bits_rather_than_nothing() -> None:
    content = InlineContent(SOUND + "\r\nKüche\r\n".encode())
    work = job(content, "direct", recipient="a@[10.0.0.9]", body=Body.EIGHT_BIT_MIME)
    assert made(work) == Outgoing(work.message)
    assert made(work, extensions={}).changes == ("quoted-printable",)


def test_smtputf8_goes_where_nothing_needs_it_any_more() -> None:
    content = InlineContent(SOUND + "Subject: Tür\r\n\r\n".encode())
    work = job(content, smtputf8=True)
    assert made(work).changes == ()
    assert made(work).message.envelope.smtputf8
    result = made(work, extensions={"8BITMIME": ""})
    assert result.changes == ("charset",)
    assert not result.message.envelope.smtputf8


DKIM = b"DKIM-Signature: v=1; h=from:date; b=x\r\n"


@pytest.mark.parametrize(
    "head", [DKIM + SOUND, SOUND + b"Content-Type: multipart/signed; boundary=b\r\n"]
)
def test_a_signed_body_stays(head: bytes) -> None:
    body = b"\r\n" + b"x" * 2_000 + b"\r\n\xfc\r\n"
    for account in (None, ACCOUNT):
        work = job(InlineContent(head + body))
        result = made(work, Relay("far", (), 25, rewrite_from=account), {})
        assert octets_of(result.message).endswith(body)
        assert bool(result.changes) == (account is not None)


def test_larger_than_set() -> None:
    work = job(InlineContent(SOUND + b"\r\n" + b"x" * 500 + b"\r\n"))
    size = work.message.size
    assert made(work, Relay("far", (), 25, max_message=size)).refusal is None
    refusal = made(work, Relay("far", (), 25, max_message=size - 1)).refusal
    assert refusal is not None
    assert str(refusal).startswith("552 5.3.4 ")


def picture(octets: bytes) -> bytes:
    return (
        b'--b\r\nContent-Type: image/jpeg; name="=?utf-8?q?T=C3=BCr=2Ejpg?="\r\n'
        b"Content-Transfer-Encoding: base64\r\n\r\n"
        + base64.encodebytes(octets).replace(b"\n", b"\r\n")
    )


MIXED = SOUND + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
STRIP = Relay("far", (), 25, max_message=3_000, oversize=Oversize.STRIP)


@pytest.mark.parametrize("by", ["setting", "announced"])
def test_larger_than_it_takes_goes_without_attachments(by: str) -> None:
    octets = bytes(range(256)) * 20
    text = b"--b\r\nContent-Type: text/plain\r\n\r\nSomebody rings.\r\n"
    work = job(InlineContent(MIXED + text + picture(octets) + b"--b--\r\n"))
    extensions = ALL if by == "setting" else {"SIZE": "4000"}
    result = made(work, STRIP if by == "setting" else replace(STRIP, max_message=None), extensions)
    assert result.refusal is None
    assert result.changes == ("left-out",)
    sent = octets_of(result.message)
    assert len(sent) < 3_000
    read = message_from_bytes(sent, policy=policy.default)
    kept, told = (one.get_content() for one in read.iter_parts())  # type: ignore[union-attr]
    assert kept == "Somebody rings."
    assert "Name: Tür.jpg\r\nType: image/jpeg\r\nSize: 5120 octets\r\n" in told
    assert f"SHA-256: {sha256(octets).hexdigest()}\r\n" in told
    assert work.message.queue_id in told


@pytest.mark.parametrize("fault", ["signed", "bounce", "too long a text"])
def test_larger_than_it_takes_goes_back(fault: str) -> None:
    head = DKIM + MIXED if fault == "signed" else MIXED
    relay = replace(STRIP, oversize=Oversize.BOUNCE) if fault == "bounce" else STRIP
    text = b"--b\r\n\r\n" + b"x" * 76 * (100 if fault == "too long a text" else 1)
    work = job(InlineContent(head + text + b"\r\n" + picture(bytes(5_000)) + b"--b--\r\n"))
    result = made(work, relay)
    assert result.refusal is not None
    assert str(result.refusal).startswith("552 5.3.4 ")


BINARY = MIXED.replace(b"/mixed", b"/mixed; x=y") + (
    b"--b\r\nContent-Type: image/jpeg\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    b"\0\r\r\n\n\xff\r\n--b--\r\n"
)


@pytest.mark.parametrize("target", ["relay:far", "direct"])
@pytest.mark.parametrize("extensions", [{}, {"8BITMIME": "", "CHUNKING": ""}])
def test_binary_for_hosts_that_take_lines(target: str, extensions: dict[str, str]) -> None:
    work = job(InlineContent(BINARY), target, body=Body.BINARY_MIME)
    result = made(work, extensions=extensions)
    assert result.message.envelope.body is None
    assert not result.message.is_eight_bit
    sent = octets_of(result.message)
    (part,) = message_from_bytes(sent, policy=policy.default).iter_parts()  # type: ignore[union-attr]
    assert part.get_payload(decode=True) == b"\0\r\r\n\n\xff"
    able = {**extensions, "CHUNKING": "", "BINARYMIME": ""}
    assert made(work, extensions=able) == Outgoing(work.message)


def test_binary_that_is_signed_stays() -> None:
    work = job(InlineContent(DKIM + BINARY), body=Body.BINARY_MIME)
    assert made(work) == Outgoing(work.message)
    # Where nothing in it is binary, whatever was announced, it goes as it is.
    plain = job(InlineContent(DKIM + MIXED + b"--b--\r\n"), body=Body.BINARY_MIME)
    result = made(plain)
    assert result.changes == ()
    assert result.message.envelope.body is None


def test_a_header_without_end(tmp_path: Path) -> None:
    path = tmp_path / "content"
    path.write_bytes(SOUND + b"X-A: b\r\n" * 300_000)
    content = FileContent(path, path.stat().st_size)
    work = job(content)
    assert made(work).message is work.message
    assert made(work, Relay("far", (), 25, rewrite_from=ACCOUNT)).refusal is not None


@pytest.mark.parametrize(
    ("line", "size"),
    [
        (b"a" * 76 + b"\r\n", 20_000_000),
        (b"a" * 5_000 + b"\r\n", 20_000_000),
        (b"\xfc" * 76 + b"\r\n", 5_000_000),
    ],
    ids=["nothing to do", "long lines", "eight bits"],
)
def test_memory_stays_flat(tmp_path: Path, line: bytes, size: int) -> None:
    """Large mail through repairs and encoding, in a few pieces at a time."""
    path = tmp_path / "content"
    path.write_bytes(b"Subject: x\r\n\r\n" + line * (size // len(line)))
    work = job(FileContent(path, path.stat().st_size))
    tracemalloc.start()
    try:
        result = made(work, extensions={})
        size = len(result.message.prepend)
        with result.message.content.open() as source:
            while piece := source.read(262_144):
                size += len(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size == result.message.size
    assert peak < 3_000_000
    assert ("quoted-printable" in result.changes) == (len(line) > 78 or not line.isascii())


@pytest.mark.parametrize("width", [76, 8_000_000])
def test_memory_stays_flat_without_an_attachment(tmp_path: Path, width: int) -> None:
    path = tmp_path / "content"
    with path.open("wb") as out:
        out.write(MIXED + b"--b\r\n\r\nhello\r\n" + picture(b"small"))
        out.write(
            picture(b"")
            + b"".join(b"QUJD" * (width // 4) + b"\r\n" for _ in range(8_000_000 // width))
        )
        out.write(b"--b--\r\n")
    work = job(FileContent(path, path.stat().st_size))
    relay = replace(STRIP, max_message=1_000_000)
    tracemalloc.start()
    try:
        result = made(work, relay)
        sent = octets_of(result.message)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result.changes[-1] == "left-out"
    assert len(sent) < 2_000
    assert peak < 3_000_000


def test_a_file_decodes_to_what_it_was(tmp_path: Path) -> None:
    path = tmp_path / "content"
    text = b"".join(b"%d \xfc %s\r\n" % (at, b"=" * (at % 1_500)) for at in range(400))
    path.write_bytes(SOUND + b"Content-Type: text/plain; charset=latin-1\r\n\r\n" + text)
    result = made(job(FileContent(path, path.stat().st_size)), extensions={})
    sent = octets_of(result.message)
    assert sent.isascii()
    assert message_from_bytes(sent).get_payload(decode=True) == text
