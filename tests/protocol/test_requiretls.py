"""REQUIRETLS in both engines (RFC 8689 §2 and §4)."""

from __future__ import annotations

import pytest

from waypost.mail.address import Address
from waypost.mail.envelope import Envelope, Recipient
from waypost.smtp.client import (
    NEEDS_REQUIRETLS,
    ClientSession,
    SessionReady,
    Transaction,
    TransactionEnded,
)
from waypost.smtp.command import MailRequested
from waypost.smtp.events import ServerSettings
from waypost.smtp.server import ServerSession

ANN = Address.parse("ann@b.example")


def server(*, is_encrypted: bool, lenient: bool = False) -> ServerSession:
    """One that was greeted; what it offered is still to be said."""
    made = ServerSession(
        ServerSettings(1_000, 10, lenient=lenient),
        "h.example",
        offers_tls=not is_encrypted,
        is_encrypted=is_encrypted,
    )
    made.receive(b"EHLO x\r\n")
    assert made.next_event() is None
    return made


def test_it_is_offered_over_tls_only() -> None:
    assert b"250-REQUIRETLS\r\n" in server(is_encrypted=True).data_to_send()
    assert b"REQUIRETLS" not in server(is_encrypted=False).data_to_send()
    started = server(is_encrypted=False)
    started.encrypted()
    started.receive(b"EHLO x\r\n")
    started.next_event()
    assert b"250-REQUIRETLS\r\n" in started.data_to_send()


@pytest.mark.parametrize("lenient", [False, True])
def test_it_is_taken_over_tls_only(lenient: bool) -> None:
    made = server(is_encrypted=True, lenient=lenient)
    made.receive(b"MAIL FROM:<ann@b.example> requiretls\r\n")
    event = made.next_event()
    assert isinstance(event, MailRequested)
    assert event.requiretls
    for line, reply in (
        (b"MAIL FROM:<ann@b.example> REQUIRETLS\r\n", b"555 5.5.4 REQUIRETLS is for sessions"),
        (b"MAIL FROM:<ann@b.example> REQUIRETLS=1\r\n", b"501 5.5.4 "),
    ):
        made = server(is_encrypted=False, lenient=lenient)
        made.data_to_send()
        made.receive(line)
        assert made.next_event() is None
        assert made.data_to_send().startswith(reply)


def client(*extensions: str, is_lmtp: bool = False) -> ClientSession:
    """One that is ready."""
    made = ClientSession("c.example", is_lmtp=is_lmtp)
    made.receive(b"220 x\r\n")
    made.data_to_send()
    lines = "".join(f"250-{word}\r\n" for word in ("x", *extensions))
    made.receive(f"{lines}250 HELP\r\n".encode())
    assert isinstance(made.next_event(), SessionReady)
    made.data_to_send()
    return made


def transaction(*, sender: Address | None = ANN, requiretls: bool = True) -> Transaction:
    envelope = Envelope(sender, requiretls=requiretls)
    return Transaction(envelope, [Recipient(ANN)], 3, is_eight_bit=False)


def test_it_is_passed_on() -> None:
    made = client("REQUIRETLS")
    made.start(transaction())
    assert made.data_to_send() == b"MAIL FROM:<ann@b.example> REQUIRETLS\r\n"
    made = client("REQUIRETLS")
    made.start(transaction(requiretls=False))
    assert made.data_to_send() == b"MAIL FROM:<ann@b.example>\r\n"


def test_a_host_that_does_not_promise_it_gets_nothing() -> None:
    made = client()
    assert not made.takes(transaction().envelope)
    made.start(transaction())
    assert made.data_to_send() == b""
    event = made.next_event()
    assert isinstance(event, TransactionEnded)
    assert event.replies == [NEEDS_REQUIRETLS]
    assert str(NEEDS_REQUIRETLS).startswith("550 5.7.30 ")


def test_a_report_goes_on_all_the_same() -> None:
    """RFC 8689 §5: it asks for it, and is not lost for want of it."""
    for extensions, said in (((), b""), (("REQUIRETLS",), b" REQUIRETLS")):
        made = client(*extensions)
        made.start(transaction(sender=None))
        assert made.data_to_send() == b"MAIL FROM:<>" + said + b"\r\n"


def test_lmtp_is_where_mail_has_arrived() -> None:
    made = client(is_lmtp=True)
    made.start(transaction())
    assert made.data_to_send() == b"MAIL FROM:<ann@b.example>\r\n"
