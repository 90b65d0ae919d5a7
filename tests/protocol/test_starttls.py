"""STARTTLS on both engines (RFC 3207), and logging in (RFC 4954), without any real TLS."""

from __future__ import annotations

import base64
import dataclasses

import pytest

from waypost.mail import reply as replies
from waypost.mail.reply import Reply
from waypost.smtp.auth import Login, Secret
from waypost.smtp.client import (
    NO_LOGIN_THERE,
    NO_TLS_THERE,
    ClientSession,
    SessionReady,
    SessionRefused,
    TlsNeed,
    TlsWanted,
)
from waypost.smtp.command import MailRequested, RcptRequested
from waypost.smtp.events import ServerSettings, TlsRequested, TransactionDropped
from waypost.smtp.phase import Phase
from waypost.smtp.replies import PeerOutOfStep
from waypost.smtp.server import ServerSession

# The server.


def server(
    *, is_lmtp: bool = False, offers_tls: bool = True, is_encrypted: bool = False
) -> ServerSession:
    settings = ServerSettings(1_000, 10, is_lmtp=is_lmtp)
    return ServerSession(settings, "hub.example", offers_tls=offers_tls, is_encrypted=is_encrypted)


def say(session: ServerSession, octets: bytes) -> bytes:
    """What a server says to these octets; it takes every sender and recipient."""
    session.receive(octets)
    while (event := session.next_event()) is not None:
        if isinstance(event, MailRequested):
            session.answer(replies.SENDER_OK)
        elif isinstance(event, RcptRequested):
            session.answer(replies.RECIPIENT_OK)
        elif isinstance(event, TlsRequested):
            session.answer(replies.READY_FOR_TLS)
        else:
            assert isinstance(event, TransactionDropped), event
    return session.data_to_send()


def encrypted(session: ServerSession) -> None:
    assert say(session, b"STARTTLS\r\n").startswith(b"220 2.0.0 ")
    session.encrypted()


def test_it_is_offered_until_it_is_done() -> None:
    session = server()
    assert b"-STARTTLS\r\n" in say(session, b"EHLO x\r\n")
    encrypted(session)
    assert b"STARTTLS" not in say(session, b"EHLO x\r\n")
    assert say(session, b"STARTTLS\r\n").startswith(b"503 5.5.1 ")
    assert session.is_encrypted


def test_it_may_come_before_any_greeting() -> None:
    session = server()
    encrypted(session)
    assert say(session, b"MAIL FROM:<a@b.example>\r\n").startswith(b"503 ")


def test_where_it_is_off_it_is_not_known() -> None:
    session = server(offers_tls=False)
    assert b"STARTTLS" not in say(session, b"EHLO x\r\n")
    assert say(session, b"STARTTLS\r\n").startswith(b"502 5.5.1 ")
    assert not session.is_encrypted


def test_where_tls_came_first_it_is_out_of_order() -> None:
    session = server(offers_tls=False, is_encrypted=True)
    assert b"STARTTLS" not in say(session, b"EHLO x\r\n")
    assert say(session, b"STARTTLS\r\n").startswith(b"503 5.5.1 ")


def test_an_argument_is_refused() -> None:
    session = server()
    say(session, b"EHLO x\r\n")
    assert say(session, b"STARTTLS now\r\n").startswith(b"501 5.5.4 ")
    assert not session.is_encrypted
    encrypted(session)


def test_it_may_not_come_in_a_transaction() -> None:
    session = server()
    for start in (b"MAIL FROM:<a@b.example>\r\n", b"RCPT TO:<c@d.example>\r\n"):
        say(session, b"EHLO x\r\n" if start.startswith(b"MAIL") else b"")
        say(session, start)
        assert say(session, b"STARTTLS\r\n").startswith(b"503 5.5.1 ")
    assert say(session, b"RSET\r\n").startswith(b"250 ")
    encrypted(session)


@pytest.mark.parametrize(
    "injected",
    [b"MAIL FROM:<a@b.example>\r\n", b"EHLO x\r\nRSET\r\n", b"\n", b"N", b"\x16\x03\x01"],
)
def test_what_follows_in_the_same_read_ends_the_session(injected: bytes) -> None:
    """CVE-2011-0411 and its many relatives: 554, and nothing of it is ever acted on."""
    session = server()
    say(session, b"EHLO x\r\n")
    said = say(session, b"STARTTLS\r\n" + injected)
    assert said.startswith(b"554 5.5.1 ")
    assert said.count(b"\r\n") == 1
    assert session.phase is Phase.CLOSED
    assert say(session, b"EHLO x\r\n") == b""
    assert not session.is_encrypted


def test_what_was_said_before_it_was_never_said() -> None:
    """RFC 3207 §4.2: greeting, transaction, and anything that waits to be read."""
    session = server()
    say(session, b"EHLO before.example\r\n")
    say(session, b"STARTTLS\r\n")
    session.receive(b"MAIL FROM:<injected@b.example>\r\nRCPT")
    session.encrypted()
    assert session.buffered_bytes == 0
    assert (session.helo, session.extended, session.recipients) == ("", False, 0)
    assert session.phase is Phase.CONNECTED
    assert say(session, b"NOOP\r\n") == replies.OK.wire
    assert say(session, b"MAIL FROM:<a@b.example>\r\n").startswith(b"503 ")
    say(session, b"EHLO after.example\r\n")
    assert session.helo == "after.example"


def test_junk_is_counted_on() -> None:
    """A handshake buys nobody more of it."""
    session = server()
    say(session, b"JUNK\r\n" * 15)
    encrypted(session)
    assert b"421 " in say(session, b"JUNK\r\n" * 5)
    assert session.phase is Phase.CLOSED


@pytest.mark.parametrize(
    ("is_lmtp", "greeting", "mail", "word"),
    [
        (False, b"HELO x", b"", "SMTP"),
        (False, b"EHLO x", b"", "ESMTPS"),
        (False, b"EHLO x", b" SMTPUTF8", "UTF8SMTPS"),
        (True, b"LHLO x", b"", "LMTPS"),
        (True, b"LHLO x", b" SMTPUTF8", "UTF8LMTPS"),
    ],
)
def test_words_for_received(is_lmtp: bool, greeting: bytes, mail: bytes, word: str) -> None:
    """RFC 3848, RFC 6531 §4.3; there is no word for HELO over TLS."""
    session = server(is_lmtp=is_lmtp)
    encrypted(session)
    say(session, greeting + b"\r\n")
    say(session, b"MAIL FROM:<a@b.example>" + mail + b"\r\n")
    assert session.protocol == word


# The client.

EHLO = b"250-x\r\n250 PIPELINING\r\n"
WITH_TLS = b"250-x\r\n250-PIPELINING\r\n250 STARTTLS\r\n"
PASSWORD = "p\u00e4ss w0rd:geheim"


def hear(client: ClientSession, octets: bytes) -> bytes:
    """The peer says something; what the client says then."""
    client.receive(octets)
    return client.data_to_send()


def client(need: TlsNeed = TlsNeed.NONE, *, logs_in: bool = False) -> ClientSession:
    """One that has said EHLO."""
    login = Login("ann", Secret(PASSWORD)) if logs_in else None
    session = ClientSession("client.example", tls=need, login=login)
    assert hear(session, b"220 x\r\n") == b"EHLO client.example\r\n"
    return session


def refusal(session: ClientSession) -> Reply:
    event = session.next_event()
    assert isinstance(event, SessionRefused), event
    assert session.is_closing
    assert not session.is_ready
    return event.reply


@pytest.mark.parametrize("need", [TlsNeed.OFFERED, TlsNeed.REQUIRED])
def test_tls_is_asked_for_where_it_is_offered(need: TlsNeed) -> None:
    session = client(need)
    assert hear(session, WITH_TLS) == b"STARTTLS\r\n"
    assert hear(session, b"220 go\r\n") == b""
    assert isinstance(session.next_event(), TlsWanted)
    assert session.next_event() is None
    session.encrypted()
    assert session.data_to_send() == b"EHLO client.example\r\n"
    # A peer that offers it again is not asked again.
    assert hear(session, WITH_TLS) == b""
    assert isinstance(session.next_event(), SessionReady)


def test_tls_is_not_asked_for_without_need() -> None:
    session = client(TlsNeed.NONE)
    assert hear(session, WITH_TLS) == b""
    assert isinstance(session.next_event(), SessionReady)


def test_without_an_offer_need_decides() -> None:
    session = client(TlsNeed.OFFERED)
    assert hear(session, EHLO) == b""
    assert isinstance(session.next_event(), SessionReady)
    session = client(TlsNeed.REQUIRED, logs_in=True)
    assert hear(session, EHLO + b"") == b""
    assert refusal(session) is NO_TLS_THERE
    assert NO_TLS_THERE.is_transient


def test_a_server_without_ehlo_cannot_do_without_tls() -> None:
    session = client(TlsNeed.REQUIRED, logs_in=True)
    assert hear(session, b"502 what\r\n") == b"HELO client.example\r\n"
    assert hear(session, b"250 x\r\n") == b""
    assert refusal(session) is NO_TLS_THERE


@pytest.mark.parametrize("answer", [b"454 4.7.0 not now", b"501 no", b"502 what", b"250 maybe"])
def test_refused_tls(answer: bytes) -> None:
    session = client(TlsNeed.OFFERED)
    hear(session, WITH_TLS)
    assert hear(session, answer + b"\r\n") == b""
    assert isinstance(session.next_event(), SessionReady)
    session = client(TlsNeed.REQUIRED, logs_in=True)
    hear(session, WITH_TLS)
    assert hear(session, answer + b"\r\n") == b""
    assert refusal(session).is_transient


@pytest.mark.parametrize("need", [TlsNeed.OFFERED, TlsNeed.REQUIRED])
def test_a_421_to_starttls_ends_it(need: TlsNeed) -> None:
    session = client(need)
    hear(session, WITH_TLS)
    assert hear(session, b"421 busy\r\n") == b""
    assert refusal(session).is_transient


@pytest.mark.parametrize("injected", [b"250 x\r\n", b"250-x\r\n250 AUTH PLAIN\r\n", b"235 in\r\n"])
def test_a_whole_reply_before_the_handshake_ends_it(injected: bytes) -> None:
    """In the same read as the 220, or in one of its own."""
    session = client(TlsNeed.REQUIRED)
    hear(session, WITH_TLS)
    with pytest.raises(PeerOutOfStep):
        session.receive(b"220 go\r\n" + injected)
    session = client(TlsNeed.REQUIRED)
    hear(session, WITH_TLS)
    hear(session, b"220 go\r\n")
    with pytest.raises(PeerOutOfStep):
        session.receive(injected)


@pytest.mark.parametrize("injected", [b"250-AUTH PLAIN\r\n", b"250-x\r\n250 SMTP", b"421 bye\r\n"])
def test_half_a_reply_before_the_handshake_does_not_count(injected: bytes) -> None:
    session = client(TlsNeed.REQUIRED)
    hear(session, WITH_TLS)
    hear(session, b"220 go\r\n" + injected)
    session.encrypted()
    assert session.extensions == {}
    session.data_to_send()
    hear(session, EHLO)
    assert isinstance(session.next_event(), TlsWanted)
    assert isinstance(session.next_event(), SessionReady)
    assert session.extensions == {"PIPELINING": ""}
    assert not session.is_closing


def test_what_was_offered_in_clear_does_not_count() -> None:
    session = client(TlsNeed.REQUIRED, logs_in=True)
    hear(session, b"250-x\r\n250-AUTH PLAIN\r\n250-SIZE 1\r\n250 STARTTLS\r\n")
    hear(session, b"220 go\r\n")
    assert isinstance(session.next_event(), TlsWanted)
    session.encrypted()
    session.data_to_send()
    assert hear(session, b"250-x\r\n250 PIPELINING\r\n") == b""
    assert refusal(session) is NO_LOGIN_THERE


# Logging in.


def b64(text: str) -> bytes:
    return base64.b64encode(text.encode())


@pytest.mark.parametrize("offer", [b"AUTH LOGIN PLAIN", b"auth plain", b"AUTH CRAM-MD5 PLAIN"])
def test_plain_is_preferred(offer: bytes) -> None:
    """RFC 4616: the initial response, in UTF-8."""
    session = client(logs_in=True)
    expected = b"AUTH PLAIN " + b64(f"\0ann\0{PASSWORD}") + b"\r\n"
    assert hear(session, b"250-x\r\n250 " + offer + b"\r\n") == expected
    assert session.next_event() is None
    assert hear(session, b"235 2.7.0 in\r\n") == b""
    assert isinstance(session.next_event(), SessionReady)


def test_login() -> None:
    session = client(logs_in=True)
    assert hear(session, b"250-x\r\n250 AUTH CRAM-MD5 LOGIN\r\n") == b"AUTH LOGIN\r\n"
    assert hear(session, b"334 VXNlcm5hbWU6\r\n") == b64("ann") + b"\r\n"
    assert hear(session, b"334 UGFzc3dvcmQ6\r\n") == b64(PASSWORD) + b"\r\n"
    hear(session, b"235 in\r\n")
    assert isinstance(session.next_event(), SessionReady)


@pytest.mark.parametrize("offer", [b"AUTH CRAM-MD5 XOAUTH2", b"AUTH", b"AUTHPLAIN", b"SIZE"])
def test_no_mechanism_is_a_temporary_refusal(offer: bytes) -> None:
    session = client(logs_in=True)
    assert hear(session, b"250-x\r\n250 " + offer + b"\r\n") == b""
    assert refusal(session) is NO_LOGIN_THERE
    assert NO_LOGIN_THERE.is_transient


@pytest.mark.parametrize("answer", [b"535 5.7.8 wrong", b"454 later", b"501 what", b"250 fine"])
def test_a_refused_login_is_temporary(answer: bytes) -> None:
    """RFC 4954 §6: the operator has to mend it, so mail waits and never goes back for it."""
    session = client(logs_in=True)
    hear(session, b"250-x\r\n250 AUTH PLAIN\r\n")
    assert hear(session, answer + b"\r\n") == b""
    reply = refusal(session)
    assert (reply.code, reply.enhanced) == (451, "4.7.8")
    assert answer[:3].decode() in str(reply)


@pytest.mark.parametrize("mechanism", [b"PLAIN", b"LOGIN"])
def test_challenges_end(mechanism: bytes) -> None:
    """A hostile peer asks on and on: it is told once that there is nothing more."""
    session = client(logs_in=True)
    said = hear(session, b"250-x\r\n250 AUTH " + mechanism + b"\r\n")
    while not said.endswith(b"*\r\n"):
        said += hear(session, b"334 \r\n")
    with pytest.raises(PeerOutOfStep):
        session.receive(b"334 \r\n")
    assert said.endswith(b"\r\n*\r\n")
    assert said.count(b"*") == 1
    assert session.next_event() is None


def test_giving_up_is_a_temporary_refusal() -> None:
    session = client(logs_in=True)
    hear(session, b"250-x\r\n250 AUTH PLAIN\r\n")
    assert hear(session, b"334 more\r\n") == b"*\r\n"
    hear(session, b"501 5.7.0 given up\r\n")
    assert refusal(session).is_transient


@pytest.mark.parametrize(
    "echo", [f"\0ann\0{PASSWORD}", PASSWORD], ids=["all of it", "the password"]
)
def test_a_peer_that_repeats_the_password_gives_it_to_nobody(echo: str) -> None:
    for said in (echo.replace("\0", " "), b64(echo).decode()):
        session = client(logs_in=True)
        hear(session, b"250-x\r\n250 AUTH PLAIN\r\n")
        hear(session, f"535 5.7.8 wrong: {said}\r\n".encode())
        reply = str(refusal(session))
        assert "***" in reply
        assert PASSWORD not in reply
        assert said not in reply


def test_a_second_login_reply_is_out_of_step() -> None:
    session = client(logs_in=True)
    hear(session, b"250-x\r\n250 AUTH PLAIN\r\n")
    with pytest.raises(PeerOutOfStep):
        session.receive(b"235 in\r\n235 in\r\n")


def test_a_password_shows_itself_to_nobody() -> None:
    secret = Secret(PASSWORD)
    assert PASSWORD not in f"{secret} {secret!r} {secret!s} {[secret]}"
    assert PASSWORD not in repr(Login("ann", secret))
    assert not dataclasses.is_dataclass(secret)
    assert (secret, hash(secret)) == (Secret(PASSWORD), hash(Secret(PASSWORD)))
    assert secret != Secret("another")
