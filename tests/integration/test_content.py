"""Content is kept and passed on octet for octet, and only to hosts that can take it."""

from __future__ import annotations

import random
import re
from urllib.parse import quote

import pytest

from tests.support.hub import Hub
from tests.support.mail import (
    accepted,
    content_of,
    message,
    next_reply,
    parsed,
    queue_id_in,
    reply_to,
    stuffed,
    submit,
    wire,
)
from tests.support.scripted_peer import EXTENSIONS, ScriptedPeer

from .conftest import StartPeer, mailbox_of

HEAD = wire("From: <ann@[127.0.0.1]>", "Subject: x", "")
EIGHT_BIT = HEAD + wire("Grüße", "Ωmega ✉") + b"latin-1: \xe4\xf6\xfc\xff\r\n"
BINARY = HEAD + bytes(range(256)) * 3 + b"\n.\n\r\r\n.\r\n\0 and no line end"


@pytest.fixture
def hub(shared_hub: Hub) -> Hub:
    """For the tests that only look into a mailbox of their own."""
    return shared_hub


def without(*words: str) -> list[str]:
    """A peer's extensions, some left out."""
    return [word for word in EXTENSIONS if word.partition(" ")[0] not in words]


def chunked(
    hub: Hub,
    recipient: str,
    content: bytes,
    *sizes: int,
    mail: str = "",
    sender: str = "ann@[127.0.0.1]",
) -> None:
    """Hand content over by BDAT, in chunks of these sizes and the rest in a last one."""
    with hub.smtp(local_hostname="x") as smtp:
        smtp.ehlo()
        accepted(smtp, f"MAIL FROM:<{sender}> {mail}".rstrip())
        accepted(smtp, f"RCPT TO:<{recipient}>")
        start = 0
        for size in sizes:
            smtp.send(b"BDAT %d\r\n" % size + content[start : start + size])
            assert next_reply(smtp).startswith("250")
            start += size
        rest = content[start:]
        smtp.send(b"BDAT %d LAST\r\n" % len(rest) + rest)
        queue_id_in(next_reply(smtp))


CONTENTS = {
    "dots": HEAD + wire(".", "..", ".x", "", "."),
    "empty": b"",
    "no-body": wire("Subject: only a header"),
    "no-header": b"\r\n" + wire("only a body"),
    "blank-lines": HEAD + b"\r\n" * 50,
    "eight-bit": EIGHT_BIT,
    "long-line": HEAD + b"x" * 200_000 + b"\r\n",
    "around-inline": HEAD + (b"y" * 70 + b"\r\n") * 910 + b"z" * 100 + b"\r\n",
    "large": HEAD + (b"." * 70 + b"\r\n") * 20_000,
    "tabs-and-form-feeds": HEAD + b"\ta\x0cb\x7f\x1b[0m\r\n",
}


@pytest.mark.parametrize("name", CONTENTS)
def test_data_arrives_exactly(hub: Hub, name: str) -> None:
    with hub.smtp(local_hostname="x") as smtp:
        submit(smtp, f"{name}@[127.0.0.1]", content=CONTENTS[name], mail="BODY=8BITMIME")
    assert content_of(hub.wait_for_mail(name)[0]) == CONTENTS[name]


@pytest.mark.parametrize("name", CONTENTS)
def test_bdat_arrives_exactly(hub: Hub, name: str) -> None:
    content = CONTENTS[name]
    sizes = [size for size in (1, 0, 7, 40) if size < len(content) // 4]
    chunked(hub, f"bdat-{name}@[127.0.0.1]", content, *sizes)
    assert content_of(hub.wait_for_mail(f"bdat-{name}")[0]) == content


def test_binary_arrives_exactly(hub: Hub) -> None:
    chunked(hub, "binary@[127.0.0.1]", BINARY, 10, 300, 0, mail="BODY=BINARYMIME")
    assert content_of(hub.wait_for_mail("binary")[0]) == BINARY


def test_large_binary_arrives_exactly(hub: Hub) -> None:
    content = HEAD + random.Random(7).randbytes(3_000_000)
    chunked(hub, "large-binary@[127.0.0.1]", content, 1_000_001, mail="BODY=BINARYMIME")
    assert content_of(hub.wait_for_mail("large-binary")[0]) == content


def test_binary_needs_bdat(hub: Hub) -> None:
    with hub.smtp(local_hostname="x") as smtp:
        smtp.ehlo()
        accepted(smtp, "MAIL FROM:<> BODY=BINARYMIME")
        accepted(smtp, "RCPT TO:<nobody@[127.0.0.1]>")
        assert reply_to(smtp, "DATA").startswith("503")


def test_pipelined_transactions_in_one_write(hub: Hub) -> None:
    with hub.smtp(local_hostname="x") as smtp:
        smtp.ehlo()
        burst = b""
        for number in range(20):
            burst += wire("MAIL FROM:<>", "RCPT TO:<pipelined@[127.0.0.1]>")
            content = message(f"number {number}")
            if number % 2:
                burst += b"BDAT %d LAST\r\n" % len(content) + content
            else:
                burst += b"DATA\r\n" + stuffed(content)
        smtp.send(burst + b"NOOP\r\n")
        replies = [next_reply(smtp) for _ in range(71)]
    assert sum("queued as" in reply for reply in replies) == 20
    assert sum(reply.startswith("354") for reply in replies) == 10
    stored = hub.wait_for_mail("pipelined", 20)
    assert {parsed(octets)["subject"] for octets in stored} == {
        f"number {number}" for number in range(20)
    }


def test_trusted_clients_line_ends_are_mended_once(hub: Hub) -> None:
    ragged = b"Subject: x\n\nunix\nmac\rboth\r\nodd\r\r\nnul\0.\n..stuffed\n"
    with hub.smtp(local_hostname="x") as smtp:
        smtp.ehlo()
        accepted(smtp, "MAIL FROM:<>")
        accepted(smtp, "RCPT TO:<ragged@[127.0.0.1]>")
        assert reply_to(smtp, "DATA").startswith("354")
        smtp.send(ragged + b"\r\n.\r\n")
        queue_id_in(next_reply(smtp))
    mended = wire("Subject: x", "", "unix", "mac", "both", "odd", "nul.", ".stuffed", "")
    assert content_of(hub.wait_for_mail("ragged")[0]) == mended


def test_smtputf8(hub: Hub) -> None:
    with hub.smtp(local_hostname="x") as smtp:
        smtp.ehlo()
        assert reply_to(smtp, "VRFY x").startswith("252")
        smtp.send("MAIL FROM:<jürgen@[127.0.0.1]>\r\n".encode())
        assert next_reply(smtp).startswith("250 2.1.0")  # strangers have to ask for SMTPUTF8
        accepted(smtp, "RSET")
        content = wire("From: Jürgen <jürgen@[127.0.0.1]>", "Subject: Grüße", "", "✉")
        submit(
            smtp, "用户@[127.0.0.1]", sender="jürgen@[127.0.0.1]", mail="SMTPUTF8", content=content
        )
    (stored,) = hub.wait_for_mail(quote("用户"))
    assert content_of(stored) == content
    assert stored.startswith("Return-Path: <jürgen@[127.0.0.1]>\r\n".encode())
    assert b" with UTF8SMTP id " in stored
    assert "用户" in [box["mailbox"] for box in hub.json("mailbox", "list")]
    assert hub.json("mailbox", "show", "用户")[0]["subject"] == "Grüße"


# Onward.


def test_a_relay_passes_everything_on_exactly(relay: Hub, next_host: ScriptedPeer) -> None:
    with relay.smtp(local_hostname="x") as smtp:
        for number, content in enumerate(CONTENTS.values(), 1):
            submit(smtp, "bob@far.example", content=content, mail="BODY=8BITMIME")
            sent = next_host.wait_for_mails(number)[-1].content
            trace, _, rest = sent.partition(b"; ")
            assert trace.startswith(b"Received: from x ([127.0.0.1])\r\n\tby [127.0.0.1] (Waypost)")
            added = b"Authentication-Results: [^\r]*\r\n(?:\t[^\r]*\r\n)*"
            assert re.sub(b"^" + added, b"", rest.partition(b"\r\n")[2]) == content
    assert all("SIZE=" in mail.sender for mail in next_host.mails)
    assert not any(mail.chunks for mail in next_host.mails)


def test_eight_bit_content_is_announced(relay: Hub, next_host: ScriptedPeer) -> None:
    with relay.smtp(local_hostname="x") as smtp:
        submit(smtp, "bob@far.example", content=EIGHT_BIT, mail="BODY=8BITMIME")
        submit(smtp, "bob@far.example", mail="BODY=8BITMIME")
    eight, seven = sorted(next_host.wait_for_mails(2), key=lambda mail: mail.content.isascii())
    assert "BODY=8BITMIME" in eight.sender.split()
    assert "BODY=8BITMIME" not in seven.sender.split()


def test_binary_goes_on_by_bdat(relay: Hub, next_host: ScriptedPeer) -> None:
    chunked(relay, "bob@far.example", BINARY, 100, mail="BODY=BINARYMIME")
    (mail,) = next_host.wait_for_mails()
    assert mail.content.endswith(BINARY)
    assert sum(mail.chunks) == len(mail.content)
    assert "BODY=BINARYMIME" in mail.sender.split()


@pytest.mark.parametrize(
    ("lacking", "mail", "recipient", "content", "reply"),
    [
        ("BINARYMIME", "BODY=BINARYMIME", "bob@far.example", BINARY, "5.6.3"),
        ("CHUNKING", "BODY=BINARYMIME", "bob@far.example", BINARY, "5.6.3"),
        ("8BITMIME", "BODY=8BITMIME", "bob@far.example", EIGHT_BIT, "5.6.3"),
        ("SMTPUTF8", "SMTPUTF8", "jürgen@far.example", message(), "5.6.7"),
        ("SMTPUTF8", "SMTPUTF8", "bob@far.example", message(), "5.6.7"),
    ],
)
def test_what_the_next_host_cannot_take_fails(
    relay: Hub,
    relay_port: int,
    start_peer: StartPeer,
    sender: str,
    lacking: str,
    mail: str,
    recipient: str,
    content: bytes,
    reply: str,
) -> None:
    next_host = start_peer(port=relay_port, extensions=without(lacking))
    chunked(relay, recipient, content, mail=mail, sender=sender)
    (report,) = relay.wait_for_mail(mailbox_of(sender))
    assert f"Status: {reply}\r\n".encode() in report
    assert next_host.mails == []
    assert not any(command.startswith("MAIL") for command in next_host.commands)


def test_seven_bit_mail_needs_no_extension(
    relay: Hub, relay_port: int, start_peer: StartPeer
) -> None:
    next_host = start_peer(port=relay_port, extensions=[])
    with relay.smtp(local_hostname="x") as smtp:
        submit(smtp, "bob@far.example", mail="BODY=8BITMIME ENVID=x", rcpt="NOTIFY=NEVER")
    (mail,) = next_host.wait_for_mails()
    assert mail.sender == "FROM:<ann@[127.0.0.1]>"
    assert mail.recipients == ["TO:<bob@far.example>"]


def test_smtputf8_goes_on_with_its_original_recipient(relay: Hub, next_host: ScriptedPeer) -> None:
    with relay.smtp(local_hostname="x") as smtp:
        submit(
            smtp,
            "jürgen@far.example",
            mail="SMTPUTF8",
            rcpt=r"NOTIFY=FAILURE ORCPT=utf-8;j\x{FC}rgen+2Bx@old.example",
        )
    (mail,) = next_host.wait_for_mails()
    assert "SMTPUTF8" in mail.sender.split()
    # RFC 6533 §3: characters of this type are written as themselves or as \x{…}.
    assert mail.recipients[0] in (
        "TO:<jürgen@far.example> NOTIFY=FAILURE ORCPT=utf-8;jürgen\\x{2B}x@old.example",
        r"TO:<jürgen@far.example> NOTIFY=FAILURE ORCPT=utf-8;j\x{FC}rgen\x{2B}x@old.example",
    )


def test_a_size_limit_of_the_next_host(
    relay: Hub, relay_port: int, start_peer: StartPeer, sender: str
) -> None:
    next_host = start_peer(port=relay_port, extensions=[*without("SIZE"), "SIZE 5000"])
    with relay.smtp(local_hostname="x") as smtp:
        big = message("big", *["x" * 70] * 100)
        submit(smtp, "bob@far.example", sender=sender, content=big)
    assert b"Status: 5.3.4" in relay.wait_for_mail(mailbox_of(sender))[0]
    assert next_host.mails == []


def test_recipient_limits_split_a_message(
    relay: Hub, relay_port: int, start_peer: StartPeer
) -> None:
    next_host = start_peer(port=relay_port, extensions=[*EXTENSIONS, "LIMITS RCPTMAX=10 MAILMAX=2"])
    recipients = [f"user{number}@far.example" for number in range(35)]
    with relay.smtp(local_hostname="x") as smtp:
        submit(smtp, *recipients)
    mails = next_host.wait_for_mails(4)
    assert sorted(len(mail.paths) for mail in mails) == [5, 10, 10, 10]
    assert sorted(path for mail in mails for path in mail.paths) == sorted(recipients)
    # No more than two transactions in a session.
    assert next_host.connections == 2


@pytest.mark.parametrize("pipelines", [True, False])
def test_pipelining_only_where_it_is_offered(
    relay: Hub, relay_port: int, start_peer: StartPeer, pipelines: bool
) -> None:
    next_host = start_peer(
        port=relay_port, extensions=EXTENSIONS if pipelines else without("PIPELINING")
    )
    next_host.answer("RCPT TO:<user3@", "550 5.1.1 Nobody here")
    with relay.smtp(local_hostname="x") as smtp:
        submit(smtp, *(f"user{number}@far.example" for number in range(6)))
    (mail,) = next_host.wait_for_mails()
    assert len(mail.paths) == 5
    assert next_host.was_pipelined is pipelines


def test_a_host_that_only_knows_helo(relay: Hub, next_host: ScriptedPeer) -> None:
    next_host.answer("EHLO", "502 5.5.1 What?")
    with relay.smtp(local_hostname="x") as smtp:
        submit(smtp, "bob@far.example")
    (mail,) = next_host.wait_for_mails()
    assert mail.sender == "FROM:<ann@[127.0.0.1]>"
    assert [command.partition(" ")[0] for command in next_host.commands[:3]] == [
        "EHLO",
        "HELO",
        "MAIL",
    ]
