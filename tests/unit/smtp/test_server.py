"""What ServerSession tells its caller: events, and the words for trace fields."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from waypost.mail import reply as replies
from waypost.mail.address import Address, AddressLiteral
from waypost.mail.envelope import Body, Notify, Ret
from waypost.mail.reply import Reply
from waypost.smtp.events import (
    ContentChunk,
    ContentEnded,
    ContentRequested,
    ServerSettings,
    TransactionDropped,
)
from waypost.smtp.phase import Phase
from waypost.smtp.server import MailRequested, RcptRequested, ServerSession


def session(
    *, is_lmtp: bool = False, lenient: bool = False, max_message_bytes: int = 1_000
) -> ServerSession:
    made = ServerSession(
        ServerSettings(max_message_bytes, 10, is_lmtp=is_lmtp, lenient=lenient), "[192.0.2.5]"
    )
    made.receive(b"LHLO x\r\n" if is_lmtp else b"EHLO x\r\n")
    assert made.next_event() is None
    made.data_to_send()
    return made


def test_greeting_names_host_and_protocol() -> None:
    """RFC 5321 §4.2, RFC 2033 §4.1: the literal where there is no name."""
    for is_lmtp, word in ((False, b"ESMTP"), (True, b"LMTP")):
        made = ServerSession(ServerSettings(1, 1, is_lmtp=is_lmtp), "[192.0.2.5]")
        made.greet()
        assert made.data_to_send().startswith(b"220 [192.0.2.5] " + word)


def test_each_keyword_is_said_once_and_size_is_the_limit() -> None:
    """RFC 5321 §4.1.1.1, RFC 1870 §4, RFC 9422 §3."""
    made = ServerSession(ServerSettings(12_345, 77), "h.example")
    made.receive(b"EHLO x\r\n")
    made.next_event()
    lines = made.data_to_send().decode().split("\r\n")[:-1]
    assert lines[0] == "250-h.example"
    keywords = [line[4:].partition(" ")[0] for line in lines[1:]]
    assert sorted(keywords) == sorted(set(keywords))
    assert "250-SIZE 12345" in lines
    assert "250-LIMITS RCPTMAX=77" in lines
    # Not offered before they are done: a client must not be led to try.
    assert not {"STARTTLS", "AUTH", "EXPN", "VRFY"} & set(keywords)


def test_mail_in_full() -> None:
    made = session()
    made.receive(
        b"MAIL FROM:<ann@[IPv6:2001:DB8::7]> SIZE=10 BODY=8bitmime SMTPUTF8"
        b" RET=HDRS ENVID=a+2Bb\r\n"
    )
    assert made.next_event() == MailRequested(
        Address("ann", AddressLiteral(ip_address("2001:db8::7"))),
        Body.EIGHT_BIT_MIME,
        True,
        "a+b",
        Ret.HEADERS,
        10,
    )


def test_mail_of_nobody() -> None:
    """RFC 5321 §4.5.5: the null reverse-path."""
    made = session()
    made.receive(b"MAIL FROM:<>\r\n")
    assert made.next_event() == MailRequested(None, None, False, None, None, None)


def test_rcpt_in_full() -> None:
    made = session()
    made.receive(b"MAIL FROM:<>\r\nRCPT TO:<a@b.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a\r\n")
    made.next_event()
    made.answer(replies.SENDER_OK)
    assert made.next_event() == RcptRequested(
        Address.parse("a@b.example"), Notify.SUCCESS | Notify.DELAY, "rfc822;a"
    )
    made.answer(replies.RECIPIENT_OK)
    made.receive(b"RCPT TO:<postmaster>\r\n")
    assert made.next_event() == RcptRequested("postmaster", None, None)


@pytest.mark.parametrize(
    ("greeting", "mail", "is_lmtp", "protocol"),
    [
        (b"HELO x\r\n", b"MAIL FROM:<>\r\n", False, "SMTP"),
        (b"EHLO x\r\n", b"MAIL FROM:<>\r\n", False, "ESMTP"),
        (b"EHLO x\r\n", b"MAIL FROM:<> SMTPUTF8\r\n", False, "UTF8SMTP"),
        (b"LHLO x\r\n", b"MAIL FROM:<>\r\n", True, "LMTP"),
        (b"LHLO x\r\n", b"MAIL FROM:<> SMTPUTF8\r\n", True, "UTF8LMTP"),
    ],
)
def test_protocol_for_received(greeting: bytes, mail: bytes, is_lmtp: bool, protocol: str) -> None:
    """RFC 3848, RFC 6531 §4.3."""
    made = ServerSession(ServerSettings(1_000, 10, is_lmtp=is_lmtp), "h")
    made.receive(greeting + mail)
    assert isinstance(made.next_event(), MailRequested)
    assert made.protocol == protocol
    made.answer(replies.SENDER_OK)
    made.receive(b"RSET\r\nMAIL FROM:<>\r\n")
    assert isinstance(made.next_event(), TransactionDropped)
    assert isinstance(made.next_event(), MailRequested)
    assert made.protocol in ("SMTP", "ESMTP", "LMTP")  # SMTPUTF8 was of that transaction only


def at_content(made: ServerSession) -> None:
    made.receive(b"MAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n")
    for answer in (replies.SENDER_OK, replies.RECIPIENT_OK, replies.RECIPIENT_OK):
        made.next_event()
        made.answer(answer)
    assert made.recipients == 2


def test_content_is_handed_on_as_it_comes() -> None:
    """Never held whole: what arrived is given before the end is seen."""
    made = session(max_message_bytes=10**9)
    at_content(made)
    made.receive(b"DATA\r\n")
    assert made.next_event() == ContentRequested(is_binary=False)
    made.answer(replies.START_CONTENT)
    line = b"x" * 98 + b"\r\n"
    total = 0
    for _ in range(50):
        made.receive(line * 100)
        while (event := made.next_event()) is not None:
            assert isinstance(event, ContentChunk)
            total += len(event.content)
        assert made.buffered_bytes == 0
    assert 50 * 10_000 - total <= 5
    made.receive(b".\r\n")
    events = []
    while (event := made.next_event()) is not None:
        events.append(event)
    assert events[-1] == ContentEnded(fault=None, was_mended=False)
    assert made.is_answering
    made.answer(Reply(250, "queued as Q", (0, 0)))
    assert made.phase is Phase.READY


def test_nothing_of_a_message_that_is_too_big_is_handed_on() -> None:
    """The limit stops the stream, not only the verdict."""
    made = session(max_message_bytes=100)
    at_content(made)
    made.receive(b"DATA\r\n")
    made.next_event()
    made.answer(replies.START_CONTENT)
    total = 0
    for _ in range(100):
        made.receive(b"x" * 98 + b"\r\n")
        while (event := made.next_event()) is not None:
            assert isinstance(event, ContentChunk)
            total += len(event.content)
    assert total <= 100
    made.receive(b".\r\n")
    event = made.next_event()
    assert event == ContentEnded(replies.MESSAGE_TOO_BIG, was_mended=False)


def test_lmtp_hears_one_answer_for_each_recipient() -> None:
    """RFC 2033 §4.2."""
    made = session(is_lmtp=True)
    at_content(made)
    made.receive(b"BDAT 0 LAST\r\n")
    assert made.next_event() == ContentRequested(is_binary=False)
    made.answer(replies.START_CONTENT)
    made.data_to_send()
    assert isinstance(made.next_event(), ContentEnded)
    made.answer(Reply(250, "one", (0, 0)), Reply(452, "two", (2, 2)))
    assert made.data_to_send() == b"250 2.0.0 one\r\n452 4.2.2 two\r\n"


def test_refuse_ends_the_session_unasked() -> None:
    """RFC 5321 §3.8."""
    made = session()
    made.receive(b"MAIL FROM:<>\r\n")
    made.next_event()
    made.refuse(replies.SHUTTING_DOWN)
    assert made.data_to_send().startswith(b"421 4.3.2 ")
    assert made.phase is Phase.CLOSED
    assert not made.is_answering
    made.receive(b"NOOP\r\n")
    assert made.next_event() is None
    assert made.data_to_send() == b""


@pytest.mark.parametrize("ending", [b"RSET\r\n", b"EHLO y\r\n", b"HELO y\r\n", b"BDAT 3\r\na\n\n"])
def test_a_transaction_that_ends_early_is_dropped_once(ending: bytes) -> None:
    made = session()
    at_content(made)
    made.receive(ending)
    dropped = 0
    while (event := made.next_event()) is not None:
        if isinstance(event, ContentRequested):
            made.answer(replies.START_CONTENT)
        dropped += isinstance(event, TransactionDropped)
    assert dropped == 1
    assert made.recipients == 0
    assert made.body is None
