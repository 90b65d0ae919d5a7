"""Logging in with access tokens: XOAUTH2, OAUTHBEARER (RFC 7628)."""

from __future__ import annotations

import base64

import pytest

from waypost.smtp.auth import Login, Mechanism, Secret
from waypost.smtp.client import ClientSession, SessionReady, SessionRefused
from waypost.smtp.replies import PeerOutOfStep

TOKEN = "ya29.t0ken"
LONG = "t" * 900
TROUBLE = base64.b64encode(b'{"status":"400","schemes":"Bearer","scope":"mail"}').decode()


def session(
    mechanism: Mechanism, token: str = TOKEN, username: str = "me@gmail.com"
) -> ClientSession:
    made = ClientSession("hub.test", login=Login(username, Secret(token), mechanism))
    made.receive(b"220 there\r\n")
    assert made.data_to_send() == b"EHLO hub.test\r\n"
    made.receive(b"250-there\r\n250 AUTH PLAIN LOGIN XOAUTH2 OAUTHBEARER\r\n")
    return made


def decoded(line: bytes) -> bytes:
    return base64.b64decode(line.split()[-1])


def test_xoauth2_in_one_command() -> None:
    made = session(Mechanism.XOAUTH2)
    command = made.data_to_send()
    assert command.startswith(b"AUTH XOAUTH2 ")
    assert decoded(command) == b"user=me@gmail.com\x01auth=Bearer ya29.t0ken\x01\x01"
    made.receive(b"235 2.7.0 fine\r\n")
    assert isinstance(made.next_event(), SessionReady)


def test_oauthbearer_escapes_the_account() -> None:
    made = session(Mechanism.OAUTHBEARER, username="a=b,c")
    assert decoded(made.data_to_send()) == b"n,a=a=3Db=2Cc,\x01auth=Bearer ya29.t0ken\x01\x01"


def test_a_long_token_goes_after_the_command() -> None:
    made = session(Mechanism.XOAUTH2, LONG)
    assert made.data_to_send() == b"AUTH XOAUTH2\r\n"
    made.receive(b"334 \r\n")
    line = made.data_to_send()
    assert decoded(line) == f"user=me@gmail.com\x01auth=Bearer {LONG}\x01\x01".encode()
    made.receive(b"235 2.7.0 fine\r\n")
    assert isinstance(made.next_event(), SessionReady)


@pytest.mark.parametrize(
    ("mechanism", "token", "answer"),
    [
        (Mechanism.XOAUTH2, TOKEN, b"\r\n"),
        (Mechanism.XOAUTH2, LONG, b"\r\n"),
        (Mechanism.OAUTHBEARER, TOKEN, b"AQ==\r\n"),
        (Mechanism.OAUTHBEARER, LONG, b"AQ==\r\n"),
    ],
)
def test_what_is_wrong_with_a_token_is_told(
    mechanism: Mechanism, token: str, answer: bytes
) -> None:
    made = session(mechanism, token)
    made.data_to_send()
    if token == LONG:
        made.receive(b"334 \r\n")
        made.data_to_send()
    made.receive(f"334 {TROUBLE}\r\n".encode())
    assert made.data_to_send() == answer
    made.receive(b"535 5.7.8 no\r\n")
    event = made.next_event()
    assert isinstance(event, SessionRefused)
    assert event.reply.code == 451
    assert '535 5.7.8 no ({"status":"400","schemes":"Bearer","scope":"mail"})' in event.reply.text
    assert made.is_login_refused


def test_a_refusal_for_now_is_none() -> None:
    made = session(Mechanism.XOAUTH2)
    made.data_to_send()
    made.receive(b"454 4.7.0 later\r\n")
    assert not made.is_login_refused


def test_what_a_peer_repeats_is_masked() -> None:
    made = session(Mechanism.XOAUTH2)
    response = made.data_to_send().split()[-1].decode()
    # Even where the end of what it says is cut off.
    echo = base64.b64encode(f"{'x' * 295}{TOKEN}".encode()).decode()
    made.receive(f"334 {echo}\r\n".encode())
    made.data_to_send()
    made.receive(f"535 5.7.8 you said {response}, which is {TOKEN}\r\n".encode())
    event = made.next_event()
    assert isinstance(event, SessionRefused)
    assert "you said ***, which is ***" in event.reply.text
    assert "x" * 295 + "***" in event.reply.text
    assert TOKEN[:5] not in event.reply.text


def test_challenges_without_end() -> None:
    made = session(Mechanism.XOAUTH2)
    made.data_to_send()
    for _ in range(2):
        made.receive(b"334 x\r\n")
        made.data_to_send()
    with pytest.raises(PeerOutOfStep):
        made.receive(b"334 x\r\n")


def test_only_what_was_asked_for_is_used() -> None:
    login = Login("me", Secret("p"), Mechanism.PLAIN)
    assert login.begin(["LOGIN", "XOAUTH2"]) is None
    login = Login("me", Secret("p"), Mechanism.LOGIN)
    assert login.begin(["PLAIN", "LOGIN"]) == b"AUTH LOGIN\r\n"
    login = Login("me", Secret("p"))
    assert login.begin(["XOAUTH2", "OAUTHBEARER"]) is None
